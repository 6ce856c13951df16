"""How does a new adapter come out of examples, and what is it worth on those held out?

One group of folds is kept aside; the adapter is trained on the rest, without torch in this room: what
trains is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from app.engines.model.head import CLASSES
from app.engines.model.version import AdapterFile, ModelVersion
from app.learning.corrections import Corrections, Example, require_enough
from app.learning.lesson import Lesson, Open, opinion, split
from app.learning.publish import next_place, publish_adapter
from app.learning.report import Answers, report_of

Train = Callable[[Sequence[Example], Path], None]
_HELD = 0  # the fold that is kept aside


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
    place = next_place(policies_dir, parent, "lora")
    cache_dir.mkdir(parents=True, exist_ok=True)
    file = cache_dir / f"{place.child}.gguf"
    taught = [example for example, _, number in rows if number != _HELD]
    train(taught, file)
    adapter = AdapterFile(file=str(file.absolute()), scale=1.0)
    child = msgspec.structs.replace(parent, id=place.child, adapter=adapter, head=None)
    held = _judge([(each, group) for each, group, number in rows if number == _HELD], child, parent, opened)
    report = report_of(
        truth=np.array([CLASSES.index(each.example.decision) for each in held]),
        child=Answers.of(np.array([each.child for each in held])),
        parent=Answers.of(np.array([each.parent for each in held])),
        legacy=Answers.certain([each.example.legacy for each in held]),
        fold=np.array([each.group for each in held]) % 2,
        facts=_facts(corrections, parent, taught, len(set(group_of))),
    )
    return Lesson(report, lambda: publish_adapter(place, parent, file.read_bytes(), report))


def _judge(
    held: Sequence[tuple[Example, int]], child: ModelVersion, parent: ModelVersion, opened: Open
) -> list[_Held]:
    """What both versions say; what either cannot read is left out."""
    said = []
    for version in (child, parent):
        with opened(version) as reader:
            said.append([opinion(example, reader) for example, _ in held])
    return [
        _Held(example, group, one, other)
        for (example, group), one, other in zip(held, *said, strict=True)
        if one is not None and other is not None
    ]


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
