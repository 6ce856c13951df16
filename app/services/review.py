"""People judge: who may, what does a verdict change, and when does it roll back?"""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import RowMapping

from app.domain.advisory import Advisory, Outcome
from app.domain.clock import rfc3339, rfc3339_or_none, to_us
from app.domain.comparison import Category, is_wrong_allow
from app.domain.counters import Count, advisory_counts, draw_counts, retracted, verdict_counts
from app.domain.decision import Decision
from app.domain.role import Principal, Role
from app.domain.rollout import RolloutPolicy
from app.domain.sampling import Draw, recorded_draw
from app.errors import Conflict, Forbidden, InvalidInput, NotFound, StoreUnavailable
from app.observability import TRANSITIONS, VERDICTS, Event
from app.services.notices import Notices
from app.services.observe import Observation
from app.services.plane import Plane
from app.services.records import advisory_row
from app.services.transitions import AUTOMATION, roll_back
from app.store import tables as t
from app.store.decisions import advisory_wire, find, verdicts_of
from app.store.ids import new_id
from app.store.ledger import Ledger
from app.store.reviews import (
    PRIORITY,
    Judge,
    change_review,
    lock_review,
    queue,
    review_of,
    standing_verdicts,
)
from app.store.rollouts import lock_state
from app.store.transaction import CounterKey, Transaction

log = structlog.get_logger()

CLAIM_S = 600
_DUE_DAYS = 7.0  # of a review whose rollout is no more


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a person says of one decision."""

    decision: Decision
    category: str | None = None
    notes: str | None = None


class Reviews:
    def __init__(
        self, plane: Plane, ledger: Ledger, notices: Notices, *, now: Callable[[], datetime]
    ) -> None:
        self._plane = plane
        self._ledger = ledger
        self._notices = notices
        self._now = now

    async def claim(self, review_id: str, principal: Principal) -> dict[str, Any]:
        """Hold a review for ten minutes. Raises `Conflict` where someone else does."""
        now_us = to_us(self._now())

        def work(tx: Transaction) -> dict[str, Any]:
            row = lock_review(tx, review_id)
            _check_may_judge(row, principal, now_us)
            expires_us = now_us + CLAIM_S * 1_000_000
            change_review(tx, review_id, claimed_by=principal.key_id, claim_expires_us=expires_us)
            return review_document(tx, lock_review(tx, review_id), principal)

        return await self._ledger.run(work)

    async def judge(self, review_id: str, verdict: Verdict, principal: Principal) -> dict[str, Any]:
        """Record a verdict; a wrong allow on high risk rolls back in the same transaction (law 6)."""
        now = self._now()

        def work(tx: Transaction) -> dict[str, Any]:
            row = lock_review(tx, review_id)
            _check_may_judge(row, principal, to_us(now))
            return self._settle(tx, row, verdict, principal, now=now, source="review")

        return await self._told(await self._ledger.run(work))

    async def report(self, decision_id: str, verdict: Verdict, principal: Principal) -> dict[str, Any]:
        """An incident. From a reviewer, operator or admin it confirms; a caller's puts a review first."""
        now = self._now()
        confirms = principal.may(Role.REVIEWER, Role.OPERATOR)

        def work(tx: Transaction) -> dict[str, Any]:
            row = self._review_for_report(tx, decision_id, principal, now=now)
            if not confirms:
                change_review(tx, row["id"], priority=PRIORITY["report"])
                return {
                    "decision_id": decision_id,
                    "review_id": row["id"],
                    "confirmed": False,
                    "rollback": None,
                }
            _check_not_own(row, principal)
            return {**self._settle(tx, row, verdict, principal, now=now, source="report"), "confirmed": True}

        return await self._told(await self._ledger.run(work))

    async def undo(self, review_id: str, principal: Principal) -> dict[str, Any]:
        """Take one's own last verdict back. It does not restore a phase, nor what a caller was told."""
        now_us = to_us(self._now())

        def work(tx: Transaction) -> dict[str, Any]:
            row = lock_review(tx, review_id)
            standing = standing_verdicts(tx.connection, review_id)
            if not standing:
                raise Conflict("nothing-to-undo", "this review has no verdict to undo")
            last = standing[-1]
            if last["judge"] != principal.key_id:
                raise Forbidden("not-your-verdict", "only the judge of a verdict can undo it")
            if _binds(row, last["source"]):
                raise Conflict("binding-verdict", "a binding verdict was given to the caller and stands")
            self._write_verdict(tx, row, None, principal, now_us=now_us, source="undo", supersedes=last)
            if row["kind"] != "binding":
                change_review(tx, review_id, status="open", verdict=None, judged_us=None)
            _count(tx, row, retracted(_verdict_counts(row, last)), now_us)
            return review_document(tx, lock_review(tx, review_id), principal)

        return await self._ledger.run(work)

    async def is_reviewed(self, decision_id: str) -> bool:
        """Whether a decision has a review already, as one that was reported before it was observed."""

        def look() -> bool:
            with self._plane.database.read() as connection:
                return review_of(connection, decision_id) is not None

        try:
            return await asyncio.to_thread(look)
        except StoreUnavailable:
            return False  # nobody can report either: let the journal have the observation

    async def advisory_for_reviewed(
        self, observation: Observation, advisory: Advisory, draw: Draw | None
    ) -> None:
        """Record an advisory whose decision has a review, which may have been judged already."""
        now = self._now()
        placed, decision_id = observation.placed, observation.decision_id

        def work(tx: Transaction) -> dict[str, Any] | None:
            tx.insert(t.advisories, advisory_row(placed, decision_id, advisory, observation.legacy))
            counts = advisory_counts(advisory, observation.legacy, exposed=placed.plan.exposed)
            for key, n in placed.counts(counts):
                tx.count(key, n)
            row = review_of(tx.connection, decision_id)
            if row is None or advisory.answer is None:
                return None
            return self._join(tx, row, advisory.answer, draw, now=now)

        await self._told({"rollback": await self._ledger.run(work)})

    def _join(
        self, tx: Transaction, row: RowMapping, answer: Decision, draw: Draw | None, *, now: datetime
    ) -> dict[str, Any] | None:
        """Let the model's answer meet the review that was there first."""
        probability = None if draw is None else draw.inclusion_probability
        change_review(tx, row["id"], model_decision=answer.value, inclusion_probability=probability)
        row = lock_review(tx, row["id"])
        if draw is not None:
            _count(tx, row, draw_counts(draw), to_us(now))
        rollback: dict[str, Any] | None = None
        for verdict in standing_verdicts(tx.connection, row["id"]):
            _count(tx, row, _verdict_counts(row, verdict), to_us(now))
            rollback = rollback or self._rolled_back(tx, row, Decision(verdict["decision"]), now=now)
        return rollback

    def _settle(
        self,
        tx: Transaction,
        row: RowMapping,
        verdict: Verdict,
        principal: Principal,
        *,
        now: datetime,
        source: str,
    ) -> dict[str, Any]:
        now_us = to_us(now)
        superseded = _superseded(tx, row)
        if superseded is not None:
            _count(tx, row, retracted(_verdict_counts(row, superseded)), now_us)
        written = self._write_verdict(
            tx, row, verdict, principal, now_us=now_us, source=source, supersedes=superseded
        )
        _count(tx, row, _verdict_counts(row, written), now_us)
        if row["kind"] != "binding" or _binds(row, source):
            change_review(
                tx,
                row["id"],
                status="judged",
                verdict=verdict.decision.value,
                judged_us=now_us,
                claimed_by=None,
            )
        return {
            "situation_id": row["decision_id"],
            "decision_id": row["decision_id"],
            "review_id": row["id"],
            "verdict_id": written["id"],
            "rollout": row["rollout"],
            "llm_decision": row["model_decision"],
            "human_decision": verdict.decision,
            "match": written["matches"],
            "notes": verdict.notes,
            "rollback": self._rolled_back(tx, row, verdict.decision, now=now),
        }

    def _rolled_back(
        self, tx: Transaction, row: RowMapping, verdict: Decision, *, now: datetime
    ) -> dict[str, Any] | None:
        """Law 6: a confirmed wrong allow of the active version on a high-risk rollout."""
        if row["model_decision"] is None or not is_wrong_allow(Decision(row["model_decision"]), verdict):
            return None
        policy = self._policy(row["rollout"])
        if policy is None or not policy.risk.is_high:
            return None
        state = lock_state(tx, row["rollout"])
        if state.version != row["version"]:
            return None
        reason = f"confirmed wrong allow: {state.version} said allow, a person said {verdict}, on {policy.risk} risk"
        facts = {"guardrail": "wrong_allow", "decision_id": row["decision_id"], "verdict": verdict}
        return roll_back(tx, state, policy, actor=AUTOMATION, reason=reason, now=now, evidence=facts)

    def _write_verdict(
        self,
        tx: Transaction,
        row: RowMapping,
        verdict: Verdict | None,
        principal: Principal,
        *,
        now_us: int,
        source: str,
        supersedes: RowMapping | None,
    ) -> dict[str, Any]:
        model = row["model_decision"]
        said = verdict.decision.value if verdict else None
        written = {
            "id": new_id(),
            "review_id": row["id"],
            "decision_id": row["decision_id"],
            "created_us": now_us,
            "rollout": row["rollout"],
            "epoch": row["epoch"],
            "version": row["version"],
            "judge": principal.key_id,
            "source": source,
            "decision": said,
            "category": verdict.category if verdict else None,
            "notes": verdict.notes if verdict else None,
            "llm_decision": model,
            "matches": None if model is None or said is None else model == said,
            "supersedes": supersedes["id"] if supersedes else None,
        }
        tx.insert(t.verdicts, written)
        return written

    def _review_for_report(
        self, tx: Transaction, decision_id: str, principal: Principal, *, now: datetime
    ) -> RowMapping:
        """The decision's review; a decision without one gets one that no draw chose."""
        decision = find(tx.connection, decision_id)
        own_only = not principal.may(Role.REVIEWER, Role.OPERATOR)
        if decision is None or (own_only and decision["key_id"] != principal.key_id):
            raise NotFound("decision", decision_id)
        found = review_of(tx.connection, decision_id)
        if found is not None:
            return lock_review(tx, found["id"])
        answered = decision["a_outcome"] == Outcome.OK
        policy = self._policy(decision["rollout"])
        due_days = _DUE_DAYS if policy is None else policy.review_due_days
        row = {
            "id": new_id(),
            "decision_id": decision_id,
            "created_us": decision["created_us"],
            "rollout": decision["rollout"],
            "epoch": decision["epoch"],
            "version": decision["version"],
            "kind": "report",
            "status": "open",
            "mode": "assisted",
            "inclusion_probability": None,
            "priority": PRIORITY["report"],
            "model_decision": decision["a_decision"] if answered else None,
            "claimed_by": None,
            "claim_expires_us": None,
            "due_us": to_us(now) + int(due_days * 86_400e6),
            "judged_us": None,
            "verdict": None,
        }
        tx.insert(t.reviews, row)
        return lock_review(tx, row["id"])

    def _policy(self, rollout: str) -> RolloutPolicy | None:
        """None where the rollout has been taken out of the policy since the decision."""
        book = self._plane.view.policy.book
        return book.get(rollout) if rollout in book.names else None

    async def _told(self, result: dict[str, Any]) -> dict[str, Any]:
        """Route by what changed at once, then tell who waits."""
        rollback = result.get("rollback")
        if rollback is not None:
            await self._plane.refresh_soon()
            TRANSITIONS.labels(rollback["rollout"], "rollback", "true").inc()
            log.warning(Event.ROLLBACK, rollout=rollback["rollout"], reason=rollback["reason"])
            self._notices.publish("transition", rollback)
        if "human_decision" in result:
            VERDICTS.labels(result["rollout"], str(result["match"]).lower()).inc()
            self._notices.decided(result["decision_id"])
        return result

    def list(
        self,
        principal: Principal,
        *,
        status: str,
        rollout: str | None,
        kind: str | None,
        limit: int,
        offset: int,
    ) -> list[dict[str, Any]]:
        judge = Judge(principal.key_id, principal.actors)
        with self._plane.database.read() as connection:
            rows = queue(
                connection, judge, status=status, rollout=rollout, kind=kind, limit=limit, offset=offset
            )
            return [review_document_from(connection, row, principal) for row in rows]


def parse_verdict(raw: Any) -> Verdict:
    """Check a verdict's body; raises `InvalidInput` naming every field that is wrong."""
    if not isinstance(raw, dict):
        raise InvalidInput([("", "a verdict is a JSON object")])
    errors = [
        (key, "is not a member of a verdict") for key in raw if key not in ("decision", "category", "notes")
    ]
    said = raw.get("decision")
    if said not in list(Decision):
        errors.append(("decision", f"must be one of {', '.join(Decision)}"))
    category, notes = raw.get("category"), raw.get("notes")
    if category is not None and category not in list(Category):
        errors.append(("category", f"must be one of {', '.join(Category)}"))
    if notes is not None and (not isinstance(notes, str) or "\x00" in notes):
        errors.append(("notes", "must be a text without NUL characters"))
    if errors:
        raise InvalidInput(errors)
    return Verdict(Decision(str(said)), category, notes)


def review_document(tx: Transaction, row: RowMapping, principal: Principal) -> dict[str, Any]:
    return review_document_from(tx.connection, row, principal)


def review_document_from(connection: Any, row: RowMapping, principal: Principal) -> dict[str, Any]:
    """The `review` shape; the model's opinion stays hidden while the review is blind and unjudged."""
    wide = find(connection, row["decision_id"])
    assert wide is not None
    blind = row["mode"] == "blind" and row["status"] == "open"
    return {
        "id": row["id"],
        "decision_id": row["decision_id"],
        "created_at": rfc3339(row["created_us"]),
        "rollout": row["rollout"],
        "phase": row["phase"],
        "version": row["version"],
        "kind": row["kind"],
        "status": row["status"],
        "mode": row["mode"],
        "inclusion_probability": row["inclusion_probability"],
        "situation": None if row["situation"] is None else json.loads(row["situation"]),
        "legacy": {
            "engine": row["legacy_engine"],
            "decision": row["legacy_decision"],
            "rule": row["legacy_rule"],
            "latency_ms": row["legacy_latency_ms"],
        },
        "decision": row["first_decision"],
        "advisory": None if blind else advisory_wire(wide),
        "verdicts": verdicts_of(connection, row["decision_id"]),
        "claimed_by": row["claimed_by"],
        "claimed_by_me": row["claimed_by"] == principal.key_id,
        "claim_expires_at": rfc3339_or_none(row["claim_expires_us"]),
        "expires_at": rfc3339(row["due_us"]),
    }


def _check_may_judge(row: RowMapping, principal: Principal, now_us: int) -> None:
    _check_not_own(row, principal)
    if row["status"] == "judged":
        raise Conflict("already-judged", "this review has a verdict; its judge can undo it")
    if row["status"] != "open" or row["due_us"] <= now_us:
        raise Conflict("review-expired", "this review is past its time and takes no verdict")
    held = row["claimed_by"] not in (None, principal.key_id) and (row["claim_expires_us"] or 0) > now_us
    if held:
        raise Conflict("claimed", "somebody else holds this review")


def _check_not_own(row: RowMapping, principal: Principal) -> None:
    if row["key_id"] == principal.key_id or row["actor_id"] in principal.actors:
        raise Forbidden("own-situation", "nobody judges a situation whose actor or key is theirs")


def _binds(row: RowMapping, source: str) -> bool:
    """Whether a verdict from there is what the caller gets: a report comes after the fact."""
    return bool(row["kind"] == "binding") and source == "review"


def _superseded(tx: Transaction, row: RowMapping) -> RowMapping | None:
    """The verdict that a new one takes the place of. A report leaves a binding one alone, and the reverse."""
    if row["kind"] == "binding":
        return None
    return next(reversed(standing_verdicts(tx.connection, row["id"])), None)


def _verdict_counts(row: RowMapping, verdict: RowMapping | dict[str, Any]) -> tuple[Count, ...]:
    """What a verdict adds to the evidence of its decision's epoch."""
    if row["model_decision"] is None:
        return ()
    model, draw = Decision(row["model_decision"]), None
    reported = row["kind"] == "binding" and not _binds(row, verdict["source"])
    if row["inclusion_probability"] is not None and not reported:
        draw = recorded_draw(row["inclusion_probability"], agrees=model == row["legacy_decision"])
    return verdict_counts(model, Decision(verdict["decision"]), draw)


def _count(tx: Transaction, row: RowMapping, counts: Iterable[Count], now_us: int) -> None:
    minute = now_us // 60_000_000
    for metric, label, n in counts:
        tx.count(CounterKey(row["rollout"], row["version"], row["epoch"], minute, metric, label), n)
