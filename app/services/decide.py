"""A situation comes in: who answers, what is recorded, and what does the caller get?"""

import asyncio
import logging
import time
from dataclasses import replace
from functools import cache
from typing import Any

import structlog

from app.domain.admission import Claim
from app.domain.advisory import Advisory
from app.domain.decision import AnsweredBy, LegacyAnswer
from app.domain.phase import Phase
from app.domain.routing import Engine, FallbackReason, PlaneState, Route, route, settle
from app.engines.model.wire import Priority
from app.observability import DECISION_SECONDS, DECISIONS, FALLBACKS, Event
from app.services.admission import Admissions
from app.services.arms import Arms
from app.services.candidates import Sighting
from app.services.documents import decision_document, fresh_advisory
from app.services.observe import Observation, Observer, count_advisory
from app.services.plane import Plane
from app.services.ports import Models
from app.services.records import Placed, Question, Strata, Written, as_sure, decision_entry
from app.store.ids import new_id
from app.store.ledger import Entry, Ledger

log = structlog.get_logger()
_stdlib_log = logging.getLogger()

_CLAIM_S = 1.0  # a database that takes longer to say whether a question is evidence loses it

# Finding a metric by its labels costs more than counting in it.
_decisions, _seconds = cache(DECISIONS.labels), cache(DECISION_SECONDS.labels)


class Decider:
    def __init__(
        self,
        plane: Plane,
        ledger: Ledger,
        models: Models,
        observer: Observer,
        strata: Strata,
        admissions: Admissions,
    ) -> None:
        self._plane = plane
        self._ledger = ledger
        self._models = models
        self._observer = observer
        self._strata = strata
        self._admissions = admissions
        self._arms = Arms()

    async def decide(self, question: Question) -> dict[str, Any]:
        """Answer one situation in the `decision` shape, committed before it returns (law 2).

        Raises `NotRecorded` where neither the database nor the journal takes the record.
        """
        placed = self._place(question)
        if placed.plan.answered_by is Engine.MODEL:
            return await self._by_model(placed)
        return await self._by_legacy(placed)

    def _place(self, question: Question) -> Placed:
        view = self._plane.view
        policy, state = view.place(question.situation)
        # Who is exposed matters only where somebody is not.
        everyone = state.phase is Phase.SHADOW or state.exposure >= 1
        share = 0.0 if everyone else view.share(question.situation.actor_id)
        arm = () if everyone else self._arms.count(state, share)
        circuit_open = self._models.of(state.version).circuit_open
        plan = route(state, share, self._plane.state(circuit_open=circuit_open))
        return Placed(question, policy, state, plan, arm=arm)

    async def _by_legacy(self, placed: Placed) -> dict[str, Any]:
        question, claiming = placed.question, None
        if placed.plan.fallback_reason is FallbackReason.CIRCUIT_OPEN:
            # That the model should have answered is evidence too: one caller must not make it frequent.
            claiming = self._claim(placed)
        legacy = await self._plane.view.policy.legacy.decide(question.situation)
        if claiming is not None:
            placed = replace(placed, claim=await claiming)
        answer = settle(placed.policy, placed.plan, legacy, None)
        decision_id = new_id()
        is_candidates = self._is_candidates(placed)
        observed = is_candidates or (
            placed.plan.observed_by is Engine.MODEL and self._observer.has_seat(placed, decision_id)
        )
        written = decision_entry(
            placed,
            decision_id,
            answer,
            legacy,
            advisory=None,
            draw=None,
            observed=observed,
            latency_ms=_elapsed_ms(question),
        )
        await self._ledger.append(written.entry)
        advisory = None
        if is_candidates:
            self._observer.candidates.offer(Sighting(decision_id, placed, legacy, None, None))
        elif observed:
            advisory = await self._observed(placed, written, legacy)
        return self._answered(placed, written, advisory)

    def _is_candidates(self, placed: Placed) -> bool:
        """Whether the candidate has this actor to itself, for as long as neither of them binds anybody."""
        if placed.state.candidate is None or placed.plan.observed_by is not Engine.MODEL:
            return False
        # Another share than the exposure's, or the candidate would get the actors that the phase applies to.
        share = self._plane.view.share(f"candidate:{placed.question.situation.actor_id}")
        return self._observer.candidates.takes(placed, share)

    async def _observed(self, placed: Placed, written: Written, legacy: LegacyAnswer) -> Advisory | None:
        """Hand the decision to the observer; wait for the advisory only as long as the rollout says."""
        seen: asyncio.Future[Advisory] = asyncio.get_running_loop().create_future()
        observation = Observation(written.row["id"], placed, legacy, written.review is not None, seen)
        self._observer.submit(observation)
        if placed.plan.phase is Phase.SHADOW or placed.policy.advisory_wait_ms <= 0:
            return None
        done, _ = await asyncio.wait((seen,), timeout=placed.policy.advisory_wait_ms / 1000)
        return seen.result() if done and not seen.cancelled() else None

    async def _by_model(self, placed: Placed) -> dict[str, Any]:
        claiming = self._claim(placed)  # by arrival: nobody knows yet what the model will say
        legacy, advisory = await self._ask_both(placed)
        placed = replace(placed, claim=await claiming)
        count_advisory(placed, legacy, advisory)
        plan = self._checked_again(placed)
        decision_id, latency_ms = new_id(), _elapsed_ms(placed.question)
        draw = self._strata.draw(placed, decision_id, legacy, advisory)

        def settled(plan: Route, otherwise: Entry | None = None) -> Written:
            return decision_entry(
                replace(placed, plan=plan),
                decision_id,
                settle(placed.policy, plan, legacy, advisory),
                legacy,
                advisory=advisory,
                draw=draw,
                observed=True,
                latency_ms=latency_ms,
                otherwise=otherwise,
            )

        spare = None
        if settle(placed.policy, plan, legacy, advisory).answered_by is AnsweredBy.MODEL:
            # Committed only while the revision stands; if it moved, this is what is committed instead.
            spare = settled(_by_rules(plan, FallbackReason.STALE_STATE))
        written = settled(plan, otherwise=spare.entry if spare else None)
        receipt = await self._ledger.append(written.entry)
        if spare is not None and receipt.entry is spare.entry:
            written = spare
        placed = replace(placed, plan=plan)
        self._observer.candidates.offer(Sighting(decision_id, placed, legacy, advisory, draw))
        self._observer.again.offer(decision_id, placed, legacy, advisory)
        self._observer.explain_later(decision_id, placed, legacy, advisory)
        return self._answered(placed, written, advisory)

    def _claim(self, placed: Placed) -> asyncio.Future[Claim]:
        """Made by the time that the model has answered; a slow database costs the evidence."""
        return self._admissions.claim(placed, within_s=min(_left_s(placed), _CLAIM_S))

    async def _ask_both(self, placed: Placed) -> tuple[LegacyAnswer, Advisory]:
        engine = self._plane.view.policy.legacy
        situation = placed.question.situation
        if self._models.of(placed.state.version).shows_legacy:
            legacy = await engine.decide(situation)
            advisory = await self._ask_model(placed, legacy)
        else:
            legacy, advisory = await asyncio.gather(engine.decide(situation), self._ask_model(placed, None))
        return legacy, as_sure(advisory, placed.policy)

    async def _ask_model(self, placed: Placed, legacy: LegacyAnswer | None) -> Advisory:
        return await self._models.of(placed.state.version).advise(
            placed.question.situation,
            priority=Priority.BINDING,
            deadline_s=_left_s(placed),
            legacy=legacy.decision if legacy else None,
            scope=placed.scope,
        )

    def _checked_again(self, placed: Placed) -> Route:
        """The route as it stands now that the model has answered: what moved meanwhile counts (law 8)."""
        view = self._plane.view
        state = view.states[placed.state.name]
        plane: PlaneState = self._plane.state(circuit_open=False)
        if plane.kill_switch:
            reason = FallbackReason.KILL_SWITCH
        elif plane.is_stale or (state.revision, state.version) != (
            placed.state.revision,
            placed.state.version,
        ):
            reason = FallbackReason.STALE_STATE
        else:
            return placed.plan
        return _by_rules(placed.plan, reason)

    def _answered(self, placed: Placed, written: Written, advisory: Advisory | None) -> dict[str, Any]:
        row, review = written.row, written.review
        _decisions(row["rollout"], row["phase"], row["decision"], row["answered_by"]).inc()
        _seconds(row["phase"]).observe(time.monotonic() - placed.question.started)
        if row["fallback_reason"] is not None:
            FALLBACKS.labels(row["rollout"], row["fallback_reason"]).inc()
        if _stdlib_log.isEnabledFor(logging.DEBUG):  # the ledger is the record; this is for a terminal
            log.debug(Event.DECISION, id=row["id"], rollout=row["rollout"], decision=row["decision"])
        return decision_document(
            row,
            advisory=None if advisory is None else fresh_advisory(advisory, None),
            review=None
            if review is None
            else {"id": review["id"], "status": review["status"], "kind": review["kind"]},
        )


def _by_rules(plan: Route, reason: FallbackReason) -> Route:
    return replace(plan, answered_by=Engine.LEGACY, fallback_reason=reason)


def _left_s(placed: Placed) -> float:
    """Until the caller's deadline; 0 when it is past."""
    return max(placed.policy.deadline_ms / 1000 - (time.monotonic() - placed.question.started), 0.0)


def _elapsed_ms(question: Question) -> float:
    return round((time.monotonic() - question.started) * 1000, 3)
