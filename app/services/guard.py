"""Has a rollout become so bad that it must go back, and did somebody watch?"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from app.domain.assessment import Answer, Assessment, GuardrailOutcome, to_wire
from app.domain.clock import to_us
from app.domain.counters import served_counts
from app.domain.limits import Action, Guardrail
from app.domain.phase import Phase
from app.domain.rollout import RolloutPolicy, RolloutState
from app.observability import Event
from app.services.judging import Judged, Judging, names_of
from app.services.notices import Notices
from app.services.oversight import lapse
from app.services.plane import Plane
from app.services.ports import Models
from app.services.queries import Queries
from app.services.reports.uptime import count_uptime
from app.services.transitions import AUTOMATION, hold, roll_back
from app.store.counters import minute_of
from app.store.deliveries import Kind, enqueue
from app.store.ledger import Ledger
from app.store.reviews import expire_due
from app.store.rollouts import PlaneRow, load_states, lock_state, read_plane, touch_plane
from app.store.streams import assessments, save_streams
from app.store.transaction import CounterKey, Transaction

log = structlog.get_logger()

CLOCK_JUMP_S = 60.0
_SERVED_AT_MOST_S = 60  # a longer gap between passes was no service
_ROWS_AT_MOST = 400  # in one transaction: no decision waits long behind it

Transitions = list[dict[str, Any]]


class Guard:
    """Judges every rollout's guardrails; harm is judged before any hold, in every phase.

    A pass reads and judges beside the ledger's writer; only what changed is written, in short transactions.
    """

    def __init__(
        self,
        plane: Plane,
        ledger: Ledger,
        models: Models,
        notices: Notices,
        queries: Queries,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plane = plane
        self._ledger = ledger
        self._models = models
        self._notices = notices
        self._queries = queries
        self._now = now
        self._monotonic = monotonic
        self._last: tuple[datetime, float] | None = None
        self._judging = Judging()

    async def look(self) -> Transitions:
        """One complete pass; returns the transitions that it made."""
        now, tick = self._now(), self._monotonic()
        jumped = self._clock_jumped(now, tick)
        self._last = now, tick
        policies = self._plane.view.policy.book.policies
        asked = (query.query for policy in policies for query in policy.guardrails.queries)
        answers = await self._queries.ask(asked)
        made: Transitions = []
        try:
            plane, states, judged = await asyncio.to_thread(self._read, policies, answers, now)
            for part in _parts(judged):
                made += await self._moved(partial(_written, part, now=now), part)
            served = [states[policy.name] for policy in policies]
            await self._ledger.run(partial(self._complete, plane, served, now=now, jumped=jumped))
        except BaseException:
            self._judging.forget()  # nobody knows what of it was written
            raise
        await self._plane.refresh_soon()
        if not plane.kill_switch:
            await self._count_service(served, _elapsed_s(plane, now), minute=minute_of(to_us(now)))
        return made

    def _read(
        self, policies: Iterable[RolloutPolicy], answers: Mapping[str, Answer], now: datetime
    ) -> tuple[PlaneRow, dict[str, RolloutState], list[Judged]]:
        with self._plane.database.read() as connection:
            plane, states = read_plane(connection), load_states(connection)
            found = self._judging.read(connection, policies, states, answers, now=now)
        return plane, states, self._judging.judge(found)

    def _complete(
        self, plane: PlaneRow, served: Iterable[RolloutState], tx: Transaction, *, now: datetime, jumped: bool
    ) -> None:
        """The pass is over: let every instance know."""
        versions = {state.version for state in served}
        elapsed_s, minute = _elapsed_s(plane, now), minute_of(to_us(now))
        count_uptime(tx, self._models, versions, seconds=elapsed_s, minute=minute)
        marks: dict[str, Any] = {"guard_passes": plane.guard_passes + 1, "guard_pass_us": to_us(now)}
        if jumped:
            marks["clock_jump_us"] = to_us(now)
        touch_plane(tx, **marks)

    def _clock_jumped(self, now: datetime, tick: float) -> bool:
        if self._last is None:
            return False
        wall_s, steady_s = (now - self._last[0]).total_seconds(), tick - self._last[1]
        if abs(wall_s - steady_s) <= CLOCK_JUMP_S:
            return False
        log.error(Event.CLOCK_JUMPED, wall_s=wall_s, steady_s=steady_s)
        return True

    async def _count_service(self, states: Sequence[RolloutState], elapsed_s: int, *, minute: int) -> None:
        """Soak counts time in which a rollout was really served by this plane and its model.

        A candidate's soak is counted beside it, by the same rule.
        """
        keys = [
            CounterKey(state.name, version, state.epoch, minute, metric, label)
            for state in states
            if not state.held
            for version in (state.version, state.candidate)
            if version is not None and self._is_up(version)
            for metric, label, _ in served_counts(elapsed_s)
        ]
        for some in range(0, len(keys) if elapsed_s else 0, _ROWS_AT_MOST):
            await self._ledger.run(
                partial(_counted, keys=keys[some : some + _ROWS_AT_MOST], elapsed_s=elapsed_s)
            )

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

    async def check_oversight(self) -> Transitions:
        """Lapsed oversight is not "no data": hold after `lapse_days` without a verdict, demote after twice that."""
        policies = self._plane.view.policy.book.policies
        return await self._moved(partial(lapse, policies=policies, now=self._now()))

    async def _moved(
        self, work: Callable[[Transaction], Transitions], judged: Iterable[Judged] = ()
    ) -> Transitions:
        """Write what a look came to and act on it; then every instance and every follower knows."""
        made = await self._ledger.run(work)
        if made:
            await self._plane.refresh_soon()
        for each in judged:
            for assessment in each.raised:
                self._notices.publish("guardrail", _told(each, assessment))
        for transition in made:
            self._notices.moved(transition)
        return made

    def assessments(self, name: str) -> list[dict[str, Any]]:
        """Every guardrail of a rollout in its fixed order, and then its queries, as last judged."""
        policy = self._plane.view.policy.book.get(name)
        with self._plane.database.read() as connection:
            said = assessments(connection, name, epoch=load_states(connection)[name].epoch)
        return [said.get(each) or _unjudged(policy, each) for each in names_of(policy)]


def _counted(tx: Transaction, *, keys: Iterable[CounterKey], elapsed_s: int) -> None:
    for key in keys:
        tx.count(key, elapsed_s)


def _parts(judged: Iterable[Judged]) -> Iterator[list[Judged]]:
    """Rollouts with something to write, few enough for one short transaction."""
    part: list[Judged] = []
    rows = 0
    for each in judged:
        if each.rows or each.act_on is not None:
            part.append(each)
            rows += len(each.rows)
        if rows >= _ROWS_AT_MOST:
            yield part
            part, rows = [], 0
    if part:
        yield part


def _written(part: Iterable[Judged], tx: Transaction, *, now: datetime) -> Transitions:
    made = []
    for judged in part:
        save_streams(tx, judged.rows)
        for assessment in judged.raised:
            enqueue(tx, kind=Kind.GUARDRAIL, body=_told(judged, assessment), now_us=to_us(now))
        transition = _acted(tx, judged, now=now)
        if transition is not None:
            made.append(transition)
    return made


def _acted(tx: Transaction, judged: Judged, *, now: datetime) -> dict[str, Any] | None:
    """Roll back or hold, whatever the revision, unless the epoch that was judged is over.

    In shadow, where the model decides nothing, a breach is only reported.
    """
    breach = judged.act_on
    if breach is None:
        return None
    state = lock_state(tx, judged.policy.name)
    if state.epoch != judged.epoch or state.phase is Phase.SHADOW:
        return None
    reason = f"guardrail {breach.name}: {breach.sentence}"
    evidence = {"guardrail": to_wire(breach), "evidence": judged.evidence}
    if breach.action is Action.ROLLBACK:
        return roll_back(
            tx, state, judged.policy, actor=AUTOMATION, reason=reason, now=now, evidence=evidence
        )
    if state.held:
        return None
    return hold(tx, state, actor=AUTOMATION, reason=reason, now=now, evidence=evidence)


def _told(judged: Judged, assessment: Assessment) -> dict[str, Any]:
    name, outcome = assessment.name, assessment.outcome.replace("_", " ")
    said = f"guardrail {name}: {outcome}: {assessment.sentence}"
    return {"rollout": judged.policy.name, **to_wire(assessment), "sentence": said}


def _elapsed_s(plane: PlaneRow, now: datetime) -> int:
    """Seconds on the clock's face since the last pass: over many passes nothing is lost to rounding."""
    if plane.guard_pass_us is None:
        return 0
    passed = to_us(now) // 1_000_000 - plane.guard_pass_us // 1_000_000
    return passed if 0 <= passed <= _SERVED_AT_MOST_S else 0


def _unjudged(policy: RolloutPolicy, name: str) -> dict[str, Any]:
    of_query = (query.action for query in policy.guardrails.queries if query.name == name)
    action = policy.action(Guardrail(name)) if name in list(Guardrail) else next(of_query)
    is_dry, said = name in policy.guardrails.dry_run, "not judged yet in this epoch"
    assessment = Assessment(name, GuardrailOutcome.INSUFFICIENT, action, said, dry_run=is_dry)
    return {**to_wire(assessment), "trail": []}
