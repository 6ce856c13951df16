"""People judge: who may, what does a verdict change, and when does it roll back?"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping

from app.domain.advisory import Advisory, Outcome
from app.domain.clock import to_us
from app.domain.counters import advisory_counts, draw_counts
from app.domain.decision import Decision, is_wrong_allow
from app.domain.role import Principal, Role
from app.domain.rollout import RolloutPolicy
from app.domain.sampling import Draw, ReviewMode
from app.errors import Conflict, Forbidden, NotFound, StoreUnavailable
from app.observability import VERDICTS
from app.services.documents import review_document
from app.services.notices import Notices
from app.services.observe import Observation
from app.services.plane import Plane
from app.services.records import advisory_row, review_row
from app.services.transitions import AUTOMATION, roll_back
from app.services.verdicts import (
    Verdict,
    answers_to,
    binds,
    check_may_judge,
    check_not_own,
    count,
    count_for_candidate,
    count_verdict,
    discount_verdict,
    standing_before,
    write_verdict,
)
from app.store import tables as t
from app.store.decisions import find
from app.store.ledger import Entry, Ledger
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
from app.store.transaction import Transaction

CLAIM_S = 600
_DUE_DAYS = 7.0  # of a review whose rollout is no more


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
            check_may_judge(row, principal, now_us)
            expires_us = now_us + CLAIM_S * 1_000_000
            change_review(tx, review_id, claimed_by=principal.key_id, claim_expires_us=expires_us)
            return review_document(tx.connection, lock_review(tx, review_id), principal)

        return await self._ledger.run(work)

    async def judge(self, review_id: str, verdict: Verdict, principal: Principal) -> dict[str, Any]:
        """Record a verdict; a wrong allow on high risk rolls back in the same transaction (law 6)."""
        now = self._now()

        def work(tx: Transaction) -> dict[str, Any]:
            row = lock_review(tx, review_id)
            check_may_judge(row, principal, to_us(now))
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
            check_not_own(row, principal)
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
            if binds(row, last["source"]):
                raise Conflict("binding-verdict", "a binding verdict was given to the caller and stands")
            write_verdict(tx, row, None, principal, now_us=now_us, source="undo", supersedes=last)
            if row["kind"] != "binding":
                change_review(tx, review_id, status="open", verdict=None, judged_us=None)
            discount_verdict(tx, row, last, now_us)
            return review_document(tx.connection, lock_review(tx, review_id), principal)

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

    async def candidate_for_reviewed(self, decision_id: str, entry: Entry) -> None:
        """Record what a candidate said of a decision that has a review, which may have been judged already."""
        now_us = to_us(self._now())

        def work(tx: Transaction) -> None:
            for table, values in entry.rows:
                tx.insert(table, values)
            for key, n in entry.counts:
                tx.count(key, n)
            row = review_of(tx.connection, decision_id)
            for verdict in () if row is None else standing_verdicts(tx.connection, row["id"]):
                assert row is not None
                count_for_candidate(tx, row, verdict, now_us)

        await self._ledger.run(work)

    def _join(
        self, tx: Transaction, row: RowMapping, answer: Decision, draw: Draw | None, *, now: datetime
    ) -> dict[str, Any] | None:
        """Let the model's answer meet the review that was there first."""
        probability = None if draw is None else draw.inclusion_probability
        change_review(tx, row["id"], model_decision=answer.value, inclusion_probability=probability)
        row = lock_review(tx, row["id"])
        if draw is not None:
            count(tx, row, draw_counts(draw), to_us(now), version=row["version"])
        rollback: dict[str, Any] | None = None
        for verdict in standing_verdicts(tx.connection, row["id"]):
            count_verdict(tx, row, verdict, to_us(now))
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
        superseded = standing_before(tx, row, source)
        if superseded is not None:
            discount_verdict(tx, row, superseded, now_us)
        written = write_verdict(
            tx, row, verdict, principal, now_us=now_us, source=source, supersedes=superseded
        )
        count_verdict(tx, row, written, now_us)
        if row["kind"] != "binding" or binds(row, source):
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
        """Law 6: a confirmed wrong allow of the active version on a high-risk rollout.

        The version may have said it while it was the candidate, and taken over since.
        """
        policy = self._policy(row["rollout"])
        if policy is None or not policy.risk.is_high:
            return None
        answers = answers_to(tx, row).items()
        wrong = [version for version, answer in answers if is_wrong_allow(answer, verdict)]
        if not wrong:
            return None
        state = lock_state(tx, row["rollout"])
        if state.version not in wrong:
            return None
        reason = f"confirmed wrong allow: {state.version} said allow, a person said {verdict}, on {policy.risk} risk"
        facts = {"guardrail": "wrong_allow", "decision_id": row["decision_id"], "verdict": verdict}
        return roll_back(tx, state, policy, actor=AUTOMATION, reason=reason, now=now, evidence=facts)

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
        row = review_row(
            {name: decision[name] for name in ("created_us", "rollout", "epoch")},
            decision_id,
            version=decision["version"],
            kind="report",
            mode=ReviewMode.ASSISTED,
            probability=None,
            priority="report",
            model=Decision(decision["a_decision"]) if answered else None,
            due_us=to_us(now) + int(due_days * 86_400e6),
        )
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
            self._notices.moved(rollback)
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
            return [review_document(connection, row, principal) for row in rows]
