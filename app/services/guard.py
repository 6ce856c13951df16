"""Has a rollout become so bad that it must go back, and did somebody watch?"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Connection

from app.domain.clock import to_us
from app.domain.counters import served_counts
from app.domain.evidence import Evidence, from_totals
from app.domain.guardrail import Assessment, Facts, GuardrailOutcome, advance, to_wire
from app.domain.limits import Action, Guardrail
from app.domain.rollout import RolloutPolicy, RolloutState
from app.domain.stream import StreamState
from app.observability import GUARDRAIL_E_VALUE, Event
from app.services.notices import Notices
from app.services.oversight import lapse
from app.services.plane import Plane
from app.services.ports import Models
from app.services.reports.uptime import count_uptime
from app.services.transitions import AUTOMATION, hold, roll_back
from app.store.counters import Totals, minute_of, totals_of_all
from app.store.ledger import Ledger
from app.store.reviews import drawn_labels, expire_due
from app.store.rollouts import PlaneRow, baselines, load_states, lock_state, read_plane, touch_plane
from app.store.streams import assessments, load_streams, save_streams
from app.store.transaction import CounterKey, Transaction

log = structlog.get_logger()

CLOCK_JUMP_S = 60.0
_LABELS_AT_MOST = 20_000  # of one rollout's open tail
_SERVED_AT_MOST_S = 60  # a longer gap between passes was no service
_DAY_US = 86_400_000_000

Judged = dict[tuple[str, str], tuple[StreamState, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class _Pass:
    """One look at every rollout, in one transaction."""

    tx: Transaction
    plane: PlaneRow
    now: datetime
    elapsed_s: int
    raised: list[dict[str, Any]] = field(default_factory=list)  # alarms that came at this look


class Guard:
    """Judges every rollout's guardrails; harm is judged before any hold, in every phase."""

    def __init__(
        self,
        plane: Plane,
        ledger: Ledger,
        models: Models,
        notices: Notices,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plane = plane
        self._ledger = ledger
        self._models = models
        self._notices = notices
        self._now = now
        self._monotonic = monotonic
        self._last: tuple[datetime, float] | None = None

    async def look(self) -> list[dict[str, Any]]:
        """One complete pass; returns the transitions that it made."""
        now, tick = self._now(), self._monotonic()
        jumped = self._clock_jumped(now, tick)
        self._last = now, tick

        def work(tx: Transaction) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
            plane = read_plane(tx.connection)
            elapsed_s = _elapsed_s(plane, now)
            this = _Pass(tx, plane, now, elapsed_s)
            made = self._judge_all(this)
            self._count_uptime(this)
            marks: dict[str, Any] = {"guard_passes": plane.guard_passes + 1, "guard_pass_us": to_us(now)}
            if jumped:
                marks["clock_jump_us"] = to_us(now)
            touch_plane(tx, **marks)
            return made, this.raised

        made, raised = await self._ledger.run(work)
        await self._plane.refresh_soon()
        for alarm in raised:
            self._notices.publish("guardrail", alarm)
        for transition in made:
            self._notices.moved(transition)
        return made

    def _clock_jumped(self, now: datetime, tick: float) -> bool:
        if self._last is None:
            return False
        wall_s, steady_s = (now - self._last[0]).total_seconds(), tick - self._last[1]
        if abs(wall_s - steady_s) <= CLOCK_JUMP_S:
            return False
        log.error(Event.CLOCK_JUMPED, wall_s=wall_s, steady_s=steady_s)
        return True

    def _judge_all(self, this: _Pass) -> list[dict[str, Any]]:
        connection = this.tx.connection
        states, counted = load_states(connection), totals_of_all(connection)
        streams, bases = load_streams(connection), baselines(connection)
        judged: Judged = {}
        made: list[dict[str, Any]] = []
        for policy in self._plane.view.policy.book.policies:
            state = states[policy.name]
            self._count_service(this, state)
            evidence = _evidence(state, counted[policy.name])
            facts = _facts(connection, policy, state, evidence, bases, streams, now=this.now)
            transition = self._judge(this, state, facts, streams, judged)
            if transition is not None:
                made.append(transition)
        save_streams(this.tx, judged, now_us=to_us(this.now))
        return made

    def _judge(
        self,
        this: _Pass,
        state: RolloutState,
        facts: Facts,
        streams: dict[tuple[str, str], StreamState],
        judged: Judged,
    ) -> dict[str, Any] | None:
        """Advance all of a rollout's guardrails, then act on the gravest breach."""
        breaches: list[Assessment] = []
        for guardrail in Guardrail:
            key = (state.name, guardrail.value)
            stream, assessment = advance(guardrail, streams.get(key), facts)
            judged[key] = stream, to_wire(assessment)
            if assessment.e_value is not None:
                GUARDRAIL_E_VALUE.labels(state.name, guardrail).set(assessment.e_value)
            if assessment.outcome is GuardrailOutcome.BREACH:
                breaches.append(assessment)
            if assessment.raised:
                this.raised.append({"rollout": state.name, **to_wire(assessment)})
        return self._act(this, state, facts.policy, breaches)

    def _act(
        self, this: _Pass, state: RolloutState, policy: RolloutPolicy, breaches: list[Assessment]
    ) -> dict[str, Any] | None:
        for breach in (b for b in breaches if b.action is Action.ROLLBACK):
            state = lock_state(this.tx, state.name)
            transition = roll_back(
                this.tx,
                state,
                policy,
                actor=AUTOMATION,
                reason=f"guardrail {breach.name}: {breach.sentence}",
                now=this.now,
                evidence={"guardrail": to_wire(breach)},
            )
            if transition is not None:
                return transition
        for breach in breaches:
            if breach.action is Action.HOLD and not state.held and breach.raised:
                return hold(
                    this.tx,
                    lock_state(this.tx, state.name),
                    actor=AUTOMATION,
                    reason=f"guardrail {breach.name}: {breach.sentence}",
                    now=this.now,
                    evidence={"guardrail": to_wire(breach)},
                )
        return None

    def _count_service(self, this: _Pass, state: RolloutState) -> None:
        """Soak counts time in which the rollout was really served by this plane and its model.

        A candidate's soak is counted beside it, by the same rule.
        """
        if state.held or this.plane.kill_switch or this.elapsed_s <= 0:
            return
        minute = minute_of(to_us(this.now))
        for version in (state.version, state.candidate):
            if version is None or not self._is_up(version):
                continue
            for metric, label, n in served_counts(this.elapsed_s):
                this.tx.count(CounterKey(state.name, version, state.epoch, minute, metric, label), n)

    def _count_uptime(self, this: _Pass) -> None:
        versions = {state.version for state in self._plane.view.states.values()}
        minute = minute_of(to_us(this.now))
        count_uptime(this.tx, self._models, versions, seconds=this.elapsed_s, minute=minute)

    def _is_up(self, version: str) -> bool:
        model = self._models.of(version)
        return model.is_ready and not model.circuit_open

    async def expire_reviews(self) -> list[str]:
        """Overdue binding reviews become deny; returns their decisions."""
        now_us = to_us(self._now())
        expired = await self._ledger.run(lambda tx: expire_due(tx, now_us))
        for decision_id in expired:
            self._notices.decided(decision_id)
        return expired

    async def check_oversight(self) -> list[dict[str, Any]]:
        """Lapsed oversight is not "no data": hold after `lapse_days` without a verdict, demote after twice that."""
        now = self._now()

        def work(tx: Transaction) -> list[dict[str, Any]]:
            return lapse(tx, self._plane.view.policy.book.policies, now=now)

        made = await self._ledger.run(work)
        if made:
            await self._plane.refresh_soon()
        for transition in made:
            self._notices.moved(transition)
        return made

    def assessments(self, name: str) -> list[dict[str, Any]]:
        """Every guardrail of a rollout in its fixed order, as last judged."""
        with self._plane.database.read() as connection:
            state = load_states(connection)[self._plane.view.policy.book.get(name).name]
            said = assessments(connection, name, epoch=state.epoch)
        return [said.get(guardrail.value) or _unjudged(guardrail) for guardrail in Guardrail]


def _facts(
    connection: Connection,
    policy: RolloutPolicy,
    state: RolloutState,
    evidence: Evidence,
    bases: dict[str, dict[str, int]],
    streams: dict[tuple[str, str], StreamState],
    *,
    now: datetime,
) -> Facts:
    stream = streams.get((state.name, Guardrail.OVERRIDE.value))
    after = stream.watermark if stream is not None and stream.epoch == state.epoch else None
    labels = drawn_labels(
        connection,
        state.name,
        version=state.version,
        epoch=state.epoch,
        after=after,
        limit=_LABELS_AT_MOST,
    )
    return Facts(policy, state.phase, evidence, now, labels, bases.get(state.name))


def _evidence(state: RolloutState, counted: Totals) -> Evidence:
    return from_totals(
        state.name,
        state.version,
        epoch=state.epoch,
        epoch_started_at=state.epoch_started_at,
        totals=counted,
        days={},
    )


def _elapsed_s(plane: PlaneRow, now: datetime) -> int:
    """Seconds on the clock's face since the last pass: over many passes nothing is lost to rounding."""
    if plane.guard_pass_us is None:
        return 0
    passed = to_us(now) // 1_000_000 - plane.guard_pass_us // 1_000_000
    return passed if 0 <= passed <= _SERVED_AT_MOST_S else 0


def _unjudged(guardrail: Guardrail) -> dict[str, Any]:
    return {
        "name": guardrail.value,
        "outcome": GuardrailOutcome.INSUFFICIENT.value,
        "action": None,
        "e_value": None,
        "threshold": None,
        "rate": None,
        "limit": None,
        "n": 0,
        "pending": 0,
        "sentence": "not judged yet in this epoch",
    }
