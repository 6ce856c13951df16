"""Which rows and counts does a decision leave behind?"""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Table

from app.domain.admission import Claim
from app.domain.advisory import Advisory, Outcome
from app.domain.counters import Count, advisory_counts, decision_counts, draw_counts, is_counted
from app.domain.decision import Decision, LegacyAnswer
from app.domain.phase import Phase
from app.domain.role import Principal
from app.domain.rollout import RolloutPolicy, RolloutState
from app.domain.routing import Answer, Engine, Route
from app.domain.sampling import (
    Draw,
    ReviewMode,
    Stratum,
    recorded_draw,
    review_draw,
    review_mode,
    stratum_of,
)
from app.domain.situation import Situation, canonical
from app.store import tables as t
from app.store.counters import minute_of
from app.store.ids import new_id
from app.store.ledger import Entry, Guard
from app.store.reviews import PRIORITY
from app.store.transaction import CounterKey, seal

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Token:
    """A caller's idempotency key, with the hash of the body that it came with."""

    key_id: str
    token: str
    body_sha256: str
    expires_us: int


@dataclass(frozen=True, slots=True)
class Question:
    """A situation as it came in: from whom, when (`started` is monotonic seconds)."""

    situation: Situation
    principal: Principal
    request_id: str | None
    started: float
    now_us: int
    token: Token | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A question in its rollout, as the plane stood when it came.

    `claim` says whether what the model makes of it is evidence, `arm` what it adds to the different actors
    inside and outside the exposure.
    """

    question: Question
    policy: RolloutPolicy
    state: RolloutState
    plan: Route
    claim: Claim = Claim.UNCLAIMED
    arm: tuple[Count, ...] = ()

    @property
    def stamp(self) -> dict[str, Any]:
        """What every row that the question leaves has in common."""
        return {
            "created_us": self.question.now_us,
            "rollout": self.state.name,
            "epoch": self.state.epoch,
        }

    @property
    def scope(self) -> Hashable:
        """Where an identical question is no new evidence, so that memory may answer it; None: nowhere."""
        return (self.state.name, self.state.epoch, self.plan.exposed) if self.policy.cache else None

    def is_evidence(self, advisory: Advisory) -> bool:
        return is_counted(advisory, exposed=self.plan.exposed, claim=self.claim)

    def advisory_counts(self, advisory: Advisory | None, legacy: LegacyAnswer | None) -> tuple[Count, ...]:
        """What an advisory on the question adds, or its absence."""
        return advisory_counts(advisory, legacy, exposed=self.plan.exposed, claim=self.claim)

    def counts(self, increments: tuple[Count, ...]) -> tuple[tuple[CounterKey, int], ...]:
        minute = minute_of(self.question.now_us)
        return _keyed(self.state.name, self.state.version, self.state.epoch, minute, increments)


@lru_cache(1024)
def _keyed(
    rollout: str, version: str, epoch: int, minute: int, increments: tuple[Count, ...]
) -> tuple[tuple[CounterKey, int], ...]:
    """Increments under their counters' keys: the same few, over and over, all through a minute."""
    return tuple(
        (CounterKey(rollout, version, epoch, minute, metric, label), n) for metric, label, n in increments
    )


class Strata:
    """How many agreements and disagreements each epoch has had so far, as this instance saw them."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], Counter[Stratum]] = {}

    def draw(self, placed: Placed, decision_id: str, legacy: LegacyAnswer, advisory: Advisory) -> Draw | None:
        """Whether this decision is drawn for review, and how; None also where there is nothing to judge.

        What is no evidence is not drawn: its situation could be when it was, or its actor has been enough.
        """
        model = advisory.answer
        if model is None or legacy.failed or not placed.is_evidence(advisory):
            return None
        key = (placed.state.name, placed.state.epoch)
        if key not in self._seen:
            # An older epoch of the rollout is over: only one is kept.
            self._seen = {other: seen for other, seen in self._seen.items() if other[0] != key[0]}
            self._seen[key] = Counter()
        seen = self._seen[key]
        draw = review_draw(
            decision_id,
            rate=placed.policy.review_rate,
            model=model,
            legacy=legacy.decision,
            agreed=seen[Stratum.AGREEMENT],
            disagreed=seen[Stratum.DISAGREEMENT],
        )
        seen[stratum_of(model, legacy.decision)] += 1
        return draw


@dataclass(frozen=True, slots=True)
class Written:
    """One way to record a decision: its entry, and the rows that the answer is made of."""

    entry: Entry
    row: dict[str, Any]
    review: dict[str, Any] | None


def decision_entry(
    placed: Placed,
    decision_id: str,
    answer: Answer,
    legacy: LegacyAnswer,
    *,
    advisory: Advisory | None,
    draw: Draw | None,
    observed: bool,
    latency_ms: float,
    otherwise: Entry | None = None,
) -> Written:
    """What a decision leaves in the ledger.

    `observed` says that a model will look at this decision later. With `otherwise` the entry stands
    only while the rollout's revision does (law 8).
    """
    question, state = placed.question, placed.state
    situation = question.situation
    body = canonical(situation)
    salt, commitment = seal(body)
    row: dict[str, Any] = {
        **placed.stamp,
        "id": decision_id,
        "revision": state.revision,
        "version": state.version,
        "phase": placed.plan.phase.value,
        "exposed": placed.plan.exposed,
        "action_type": situation.action_type,
        "key_id": question.principal.key_id,
        "decision": answer.decision.value,
        "answered_by": answer.answered_by.value,
        "fallback_reason": answer.fallback_reason.value if answer.fallback_reason else None,
        "combine": placed.policy.combine.value,
        "legacy_engine": legacy.engine,
        "legacy_decision": legacy.decision.value,
        "legacy_rule": legacy.rule,
        "legacy_error": legacy.error,
        "legacy_latency_ms": legacy.latency_ms,
        "latency_ms": latency_ms,
        "request_id": question.request_id,
        "situation_commitment": commitment,
    }
    kept = {"decision_id": decision_id, "actor_id": situation.actor_id, "salt": salt, "body": body}
    rows = [(t.decisions, row), (t.situations, kept)]
    counts = placed.arm + decision_counts(
        answer, phase=placed.plan.phase, exposed=placed.plan.exposed, claim=placed.claim
    )
    if advisory is not None:
        rows.append((t.advisories, advisory_row(placed, decision_id, advisory, legacy)))
    if advisory is not None or (placed.plan.observed_by is Engine.MODEL and not observed):
        counts += placed.advisory_counts(advisory, legacy)
    review = None
    if placed.plan.phase is not Phase.SHADOW and answer.decision is Decision.REQUIRE_ATTESTATION:
        # A caller waits for it; it may be drawn, too.
        due_s = placed.policy.attestation_ttl_s
        review = _review(placed, decision_id, advisory, draw, kind="binding", priority="binding", due_s=due_s)
    elif draw is not None and advisory is not None:
        review = _drawn_review(placed, decision_id, legacy, advisory, draw)
    if review is not None:
        rows.append((t.reviews, review))
    if draw is not None:
        counts += draw_counts(draw)
    if question.token is not None:
        rows.append((t.idempotency, {**asdict(question.token), "decision_id": decision_id}))
    guard = Guard(state.name, state.revision) if otherwise is not None else None
    return Written(Entry(tuple(rows), placed.counts(counts), guard, otherwise), row, review)


def observation_entry(
    placed: Placed,
    decision_id: str,
    legacy: LegacyAnswer,
    advisory: Advisory,
    *,
    draw: Draw | None,
    table: Table = t.advisories,
) -> Entry:
    """What an observation adds to a decision that already left; a candidate's goes to a `table` of its own."""
    rows: list[tuple[Any, Mapping[str, Any]]] = [(table, advisory_row(placed, decision_id, advisory, legacy))]
    counts = placed.advisory_counts(advisory, legacy)
    if draw is not None:
        rows.append((t.reviews, _drawn_review(placed, decision_id, legacy, advisory, draw)))
        counts += draw_counts(draw)
    return Entry(tuple(rows), placed.counts(counts), None, None)


def advisory_row(
    placed: Placed, decision_id: str, advisory: Advisory, legacy: LegacyAnswer
) -> dict[str, Any]:
    p = advisory.probabilities
    return {
        **placed.stamp,
        "decision_id": decision_id,
        "version": advisory.version,
        "outcome": advisory.outcome.value,
        "decision": advisory.decision.value if advisory.decision else None,
        "p_allow": p.allow if p else None,
        "p_require_attestation": p.require_attestation if p else None,
        "p_deny": p.deny if p else None,
        "confidence": advisory.confidence,
        "coverage": advisory.coverage,
        "prompt_tokens": advisory.prompt_tokens,
        "latency_ms": advisory.latency_ms,
        "started": advisory.started,
        "cached": advisory.cached,
        "counted": placed.is_evidence(advisory),
        "agrees": None if advisory.answer is None or legacy.failed else advisory.answer is legacy.decision,
    }


def review_row(
    stamp: Mapping[str, Any],
    decision_id: str,
    *,
    version: str,
    kind: str,
    mode: ReviewMode,
    probability: float | None,
    priority: str,
    model: Decision | None,
    due_us: int,
) -> dict[str, Any]:
    """An open review; `model` is the raw answer that it judges, `priority` a name in `PRIORITY`."""
    return {
        **stamp,
        "id": new_id(),
        "decision_id": decision_id,
        "version": version,
        "kind": kind,
        "status": "open",
        "mode": mode.value,
        "inclusion_probability": probability,
        "priority": PRIORITY[priority],
        "model_decision": model.value if model else None,
        "due_us": due_us,
    }


def _review(
    placed: Placed,
    decision_id: str,
    advisory: Advisory | None,
    draw: Draw | None,
    *,
    kind: str,
    priority: str,
    due_s: float,
) -> dict[str, Any]:
    return review_row(
        placed.stamp,
        decision_id,
        version=placed.state.version,
        kind=kind,
        mode=review_mode(decision_id),
        probability=None if draw is None else draw.inclusion_probability,
        priority=priority,
        model=None if advisory is None else advisory.answer,
        due_us=placed.question.now_us + int(due_s * 1e6),
    )


def _drawn_review(
    placed: Placed, decision_id: str, legacy: LegacyAnswer, advisory: Advisory, draw: Draw
) -> dict[str, Any]:
    """Where the model is milder than the rules it goes first."""
    assert advisory.answer is not None
    priority = "too_permissive" if advisory.answer.severity < legacy.decision.severity else "drawn"
    due_s = placed.policy.review_due_days * _DAY_S
    return _review(placed, decision_id, advisory, draw, kind="drawn", priority=priority, due_s=due_s)


def draw_of(review: Mapping[Any, Any], decision: Mapping[Any, Any]) -> Draw | None:
    """How the reviewed decision was drawn, as their rows tell; None where it was not."""
    if review["inclusion_probability"] is None:
        return None
    agrees = review["model_decision"] == decision["legacy_decision"]
    return recorded_draw(review["inclusion_probability"], agrees=agrees)


def as_sure(advisory: Advisory, policy: RolloutPolicy) -> Advisory:
    """Unsure, where the rollout asks for more confidence than the model has, or than its server tells."""
    if advisory.outcome is not Outcome.OK or (advisory.confidence or 0.0) >= policy.confidence_at_least:
        return advisory
    return replace(advisory, outcome=Outcome.UNSURE)
