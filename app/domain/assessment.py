"""What is a guardrail judged by, and what can come of it?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.domain.evidence import Evidence
from app.domain.limits import Action, Guardrail
from app.domain.phase import Phase
from app.domain.rollout import RolloutPolicy
from app.domain.stream import Label, StreamState


class GuardrailOutcome(StrEnum):
    OK = "ok"
    WARNING = "warning"
    BREACH = "breach"
    INSUFFICIENT = "insufficient"
    ERROR = "error"
    DRY_RUN = "dry_run"  # it would be a breach, but only reports
    STALE = "stale"  # there was evidence, but for long nothing new: neither good nor bad


@dataclass(frozen=True, slots=True)
class Answer:
    """What Prometheus said to a query: one finite number, or why there is none."""

    value: float | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rollout's guardrails are judged by.

    `labels` are the drawn reviews of exposed decisions of this epoch behind the override stream's
    watermark, in decision order. `baseline` counts the model's answers in its last shadow epoch, by
    decision, and its pairs with the legacy engine's, by "legacy>model". `answers` are by the query's text.
    """

    policy: RolloutPolicy
    phase: Phase
    evidence: Evidence
    now: datetime
    labels: Sequence[Label] = ()
    baseline: Mapping[str, int] | None = None
    answers: Mapping[str, Answer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Assessment:
    """One guardrail, judged; `name` is a guardrail's or a query's.

    `raised` says that its alarm, or its first warning of the epoch, came at this very look: it is to be
    announced.
    """

    name: str
    outcome: GuardrailOutcome
    action: Action
    sentence: str
    e_value: float | None = None
    threshold: float | None = None
    rate: float | None = None
    limit: float | None = None
    n: int = 0
    pending: int = 0
    dry_run: bool = False
    raised: bool = False


def bare(guardrail: Guardrail, policy: RolloutPolicy, outcome: GuardrailOutcome, said: str) -> Assessment:
    """An assessment without figures."""
    is_dry = guardrail in policy.guardrails.dry_run
    return Assessment(guardrail, outcome, policy.action(guardrail), said, dry_run=is_dry)


def settled(state: StreamState, judged: Assessment) -> tuple[StreamState, Assessment]:
    """What holds for whatever was judged: a dry run breaches nothing, a first warning is announced."""
    if judged.dry_run and judged.outcome is GuardrailOutcome.BREACH:
        said = f"{judged.sentence}; a dry run: it would have {_DONE[judged.action]}"
        return state, replace(judged, outcome=GuardrailOutcome.DRY_RUN, sentence=said)
    if judged.outcome is GuardrailOutcome.WARNING and not state.warned:
        return replace(state, warned=True), replace(judged, raised=True)
    return state, judged


def closeness(e_value: float | None, threshold: float | None) -> float | None:
    """How far evidence is on its way from 1, which is none, to its threshold: 0..1, in logarithms."""
    if e_value is None or threshold is None:
        return None
    return min(math.log(max(e_value, 1.0)) / math.log(threshold), 1.0)


def to_wire(assessment: Assessment) -> dict[str, Any]:
    """One member of the `guardrails` shape."""
    return {name: getattr(assessment, name) for name in _SHOWN}


_SHOWN = tuple(each.name for each in fields(Assessment) if each.name != "raised")
_DONE = {Action.ROLLBACK: "rolled back", Action.HOLD: "held the rollout", Action.NOTIFY: "notified"}
