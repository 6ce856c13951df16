"""How does a new adapter come out of examples, and what is it worth on those held out?

One fold is kept aside; the adapter is trained on the rest, where torch is installed.
"""

import importlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from app.engines.model.cores import thread_count
from app.engines.model.head import CLASSES
from app.engines.model.version import AdapterFile, ModelVersion, prompt_of
from app.engines.model.weights import Weights
from app.errors import Refused
from app.learning.corrections import Corrections, Example, require_enough
from app.learning.lesson import Lesson, Open, opinion, split
from app.learning.lora.adapter import write_adapter
from app.learning.lora.served import base_of
from app.learning.publish import next_place, publish_adapter
from app.learning.report import Answers, report_of

Train = Callable[[Sequence[Example], Path], None]
_HELD = 0  # the fold that is kept aside
_TOLD_S = 30.0
_CHECKED = 8  # examples on which torch and llama.cpp are compared


@dataclass(frozen=True, slots=True)
class _Held:
    example: Example
    group: int
    child: tuple[float, ...]
    parent: tuple[float, ...]


def learn_adapter(
    corrections: Corrections,
    parent: ModelVersion,
    opened: Open,
    *,
    train: Train,
    cache_dir: Path,
    policies_dir: Path,
) -> Lesson:
    """Train an adapter on four fifths of the groups and judge it, as llama.cpp decodes it, on the last.

    `train` writes the adapter to the path that it is given, checked. Raises what it raises, and `Refused`
    below 50 examples or without enough groups, `ModelError`.
    """
    require_enough(corrections)
    group_of, fold = split(corrections.examples)
    rows = list(zip(corrections.examples, group_of, fold.tolist(), strict=True))
    child_id = next_place(policies_dir, parent, "lora").child
    cache_dir.mkdir(parents=True, exist_ok=True)
    file = cache_dir / f"{child_id}.{os.getpid()}.gguf"
    taught = [example for example, _, number in rows if number != _HELD]
    train(taught, file)
    adapter = AdapterFile(file=str(file.absolute()), scale=1.0)
    child = msgspec.structs.replace(parent, id=child_id, adapter=adapter, head=None)
    held = _judge([(each, group) for each, group, number in rows if number == _HELD], child, parent, opened)
    report = report_of(
        truth=np.array([CLASSES.index(each.example.decision) for each in held]),
        child=Answers.of(np.array([each.child for each in held])),
        parent=Answers.of(np.array([each.parent for each in held])),
        legacy=Answers.certain([each.example.legacy for each in held]),
        fold=np.array([each.group for each in held]) % 2,
        facts=_facts(corrections, parent, taught, len(set(group_of))),
    )

    def publish() -> Path:
        # The place anew: somebody else may have taken it while this one was trained.
        place = next_place(policies_dir, parent, "lora")
        return publish_adapter(place, parent, file.read_bytes(), report)

    return Lesson(report, publish)


def _judge(
    held: Sequence[tuple[Example, int]], child: ModelVersion, parent: ModelVersion, opened: Open
) -> list[_Held]:
    """What both versions say; what either cannot read is left out. Raises `Refused` where nothing is left."""
    said = []
    for version in (child, parent):
        with opened(version) as reader:
            said.append([opinion(example, reader) for example, _ in held])
    judged = [
        _Held(example, group, one, other)
        for (example, group), one, other in zip(held, *said, strict=True)
        if one is not None and other is not None
    ]
    if not judged:
        raise Refused(f"{parent.id} can read none of the {len(held)} examples that were held out")
    return judged


def _facts(
    corrections: Corrections, parent: ModelVersion, taught: Sequence[Example], groups: int
) -> dict[str, Any]:
    return {
        "method": "lora",
        "parent": parent.id,
        "examples": len(corrections.examples),
        "taught": len(taught),
        "groups": groups,
        "provenance": corrections.provenance,
    }


def trainer(
    parent: ModelVersion,
    weights: Weights,
    *,
    policies_dir: Path,
    cache_dir: Path,
    minutes: float | None,
    tell: Callable[[str], None],
) -> Train:
    """Training on the parent's base in the layout that serves, from the parent's adapter on.

    What it writes was checked: llama.cpp reads the labels as they were trained. Raises `Refused` where
    torch is missing, `ModelError`, `OSError`.
    """
    teaching, checking = _needing_torch("train"), _needing_torch("check")
    threads = thread_count(parent.decoding.threads)
    prompt = prompt_of(parent, policies_dir=policies_dir)
    base = base_of(parent, weights, prompt=prompt, cache_dir=cache_dir)
    recipe = teaching.Recipe(minutes=minutes or math.inf, threads=threads)

    def train(examples: Sequence[Example], file: Path) -> None:
        adapter = teaching.train(
            base, prompt, examples, recipe=recipe, start=weights.adapter, progress=_Told(tell)
        )
        write_adapter(file, adapter)
        checking.check(base, file, prompt, examples[:_CHECKED], threads=threads)

    return train


class _Told:
    """Says every half minute how far training is."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._next_s = tell, _TOLD_S

    def __call__(self, progress: Any) -> None:
        if progress.elapsed_s >= self._next_s:
            self._next_s = progress.elapsed_s + _TOLD_S
            self._tell(
                f"{progress.seen} of {progress.of} examples in {progress.elapsed_s:.0f} s, "
                f"{progress.accuracy:.0%} of the last ones right before they were learned"
            )


def _needing_torch(name: str) -> Any:
    """A module of the package that needs torch: imported here, because that may be missing."""
    try:
        return importlib.import_module(f"app.learning.lora.{name}")
    except ModuleNotFoundError as error:
        message = f"--method lora needs {error.name}: pip install -e '.[train]'"
        raise Refused(message) from error
