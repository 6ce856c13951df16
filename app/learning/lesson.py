"""What comes of a set of examples: a new version, or the reason why there is none?"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.domain.advisory import Advisory
from app.domain.decision import Decision
from app.domain.situation import Situation
from app.engines.model.head import CLASSES, Basis, Head, Hidden, features
from app.engines.model.prompt import write
from app.engines.model.version import ModelVersion
from app.errors import Refused
from app.learning.corrections import EXAMPLES_AT_LEAST, Corrections, Example, require_enough
from app.learning.folds import folds, groups
from app.learning.head import Table, fit_head, hold_out, probabilities
from app.learning.publish import next_place, publish_head
from app.learning.report import Answers, report_of, verdict


class Reader(Protocol):
    """A loaded version, such as `LocalModel`."""

    def advise(self, situation: Situation, *, legacy: Decision | None = None) -> Advisory: ...

    def hidden(self, situation: Situation, *, legacy: Decision | None = None) -> Hidden: ...


Open = Callable[[ModelVersion], AbstractContextManager[Reader]]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was learned and how good it is, with the act that makes a version of it."""

    report: dict[str, Any]
    write: Callable[[], Path]

    def require_better(self) -> None:
        """Raises `Refused` naming everything in which it is no better."""
        if not self.report["better"]:
            raise Refused(f"no version comes of this: {'; '.join(verdict(self.report))}")

    def publish(self) -> Path:
        """Write the new version beside its parent. Raises `Refused`, `Conflict`, `OSError`."""
        self.require_better()
        return self.write()


@dataclass(frozen=True, slots=True)
class Seen:
    """An example, where it stands among the others, and what the model made of it."""

    example: Example
    group: int
    fold: int
    named: dict[str, float]
    hidden: Hidden
    shares: tuple[float, ...]  # the parent's, by CLASSES


def learn_head(
    corrections: Corrections, parent: ModelVersion, opened: Open, *, basis: Basis, policies_dir: Path
) -> Lesson:
    """Fit a head over the parent's model and judge it on held-out groups.

    Raises `Refused` below 50 examples or without enough groups, `ModelError`.
    """
    require_enough(corrections)
    seen = _look(corrections.examples, parent, opened)
    table = Table.of(
        [each.named for each in seen],
        [each.hidden for each in seen],
        [each.example.decision for each in seen],
    )
    fold = np.array([each.fold for each in seen])
    held = hold_out(table, fold)
    head = fit_head(table, held, basis=basis)
    report = report_of(
        truth=table.labels,
        child=Answers.of(probabilities(table, held.logits / head.temperature)),
        parent=Answers.of(np.array([each.shares for each in seen])),
        legacy=Answers.certain([each.example.legacy for each in seen]),
        fold=fold,
        facts=_facts(corrections, parent, seen, head),
    )
    return Lesson(
        report, lambda: publish_head(next_place(policies_dir, parent, "head"), parent, head, report)
    )


def beneath(parent: ModelVersion) -> ModelVersion:
    """The version whose hidden states a head on `parent` reads: shown the rules, each situation alone."""
    alone = msgspec.structs.replace(parent.decoding, shadow_batch=1)
    return msgspec.structs.replace(parent, head=None, calibration=None, show_legacy=True, decoding=alone)


def split(examples: Sequence[Example]) -> tuple[list[int], NDArray[np.int64]]:
    """The group and the fold of each example. Raises `Refused` where there are too few groups."""
    group_of = groups([each.situation for each in examples], [each.actor for each in examples])
    return group_of, folds(group_of)


def opinion(example: Example, reader: Reader) -> tuple[float, ...] | None:
    """A version's shares of `CLASSES`; None where it does not fit or is not understood."""
    found = reader.advise(example.situation, legacy=example.legacy).probabilities
    return None if found is None else tuple(found.of(label) for label in CLASSES)


def _look(examples: Sequence[Example], parent: ModelVersion, opened: Open) -> list[Seen]:
    """What can be read of the examples; what the model cannot read teaches nothing.

    Raises `Refused` where that leaves too few.
    """
    group_of, fold = split(examples)
    with opened(beneath(parent)) as reader:
        states = [_state(each, reader) for each in examples]
    with opened(parent) as reader:
        opinions = [opinion(each, reader) for each in examples]
    rows = zip(examples, group_of, fold.tolist(), states, opinions, strict=True)
    seen = [
        Seen(example, group, number, *state, shares)
        for example, group, number, state, shares in rows
        if state is not None and shares is not None
    ]
    if len(seen) < EXAMPLES_AT_LEAST:
        raise Refused(
            f"{parent.id} can read {len(seen)} of {len(examples)} examples, and {EXAMPLES_AT_LEAST} are needed"
        )
    return seen


def _state(example: Example, reader: Reader) -> tuple[dict[str, float], Hidden] | None:
    """What a head reads of an example; None where it does not fit or is not understood."""
    own = reader.advise(example.situation, legacy=example.legacy).probabilities
    if own is None:
        return None
    lines = write(example.situation, legacy=example.legacy)
    return features(lines, own), reader.hidden(example.situation, legacy=example.legacy)


def _facts(
    corrections: Corrections, parent: ModelVersion, seen: Sequence[Seen], head: Head
) -> dict[str, Any]:
    return {
        "method": "head",
        "parent": parent.id,
        "examples": len(seen),
        "unreadable": len(corrections.examples) - len(seen),
        "groups": len({each.group for each in seen}),
        "provenance": corrections.provenance,
        "c": head.c,
        "temperature": head.temperature,
        "threshold": head.threshold,
    }
