"""People judge: who may, what does a verdict change, and when does it roll back?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping

from app.domain.advisory import Outcome
from app.domain.clock import to_us
from app.domain.decision import Decision
from app.domain.role import Principal, Role
from app.domain.sampling import ReviewMode, doubled
from app.errors import Conflict, Forbidden, NotFound
from app.observability import VERDICTS
from app.services.documents import review_document
from app.services.notices import Notices
from app.services.plane import Plane
from app.services.records import review_row
from app.services.tally import follow, policy_of, recount, tally
from app.services.verdicts import (
    Verdict,
    binds,
    check_not_own,
    claim,
    foremost,
    judges_as,
    standing_before,
    third_status,
    write_verdict,
)
from app.store import tables as t
from app.store.decisions import find
from app.store.ledger import Ledger
from app.store.review_queue import Wanted, queue
from app.store.reviews import (
    LATER,
    PRIORITY,
    SECOND,
    THIRD,
    Backlog,
    Judge,
    change_review,
    judge_of,
    lock_review,
    review_backlog,
    review_of,
    standing_verdicts,
)
from app.store.transaction import Transaction

_DUE_DAYS = 7.0  # of a review whose rollout is no more


@dataclass(frozen=True, slots=True)
class Reviews:
    plane: Plane
    ledger: Ledger
    notices: Notices
    now: Callable[[], datetime]

    async def claim(self, review_id: str, principal: Principal) -> dict[str, Any]:
        """Hold a review for ten minutes. Raises `Conflict` where someone else does."""
        now_us = to_us(self.now())

        def work(tx: Transaction) -> dict[str, Any]:
            row, judge = lock_review(tx, review_id), judge_of(tx.connection, principal)
            claim(tx, row, judge, now_us)
            return review_document(tx.connection, lock_review(tx, review_id), judge)

        return await self.ledger.run(work)

    async def judge(self, review_id: str, verdict: Verdict, principal: Principal) -> dict[str, Any]:
        """Record a verdict; a wrong allow on high risk rolls back in the same transaction (law 6).

        A second or third verdict is given by who claimed the review after the one before: nobody else saw it
        blind.
        """
        now = self.now()

        def work(tx: Transaction) -> dict[str, Any]:
            row, judge = lock_review(tx, review_id), judge_of(tx.connection, principal)
            source = judges_as(tx.connection, row, judge, to_us(now))
            if source in LATER and row["claimed_by"] != judge.key_id:
                raise Conflict(
                    "already-judged", f"this review has a verdict; claim it to be its {source} judge"
                )
            return self._settle(tx, row, verdict, judge, now=now, source=source)

        return await self._told(await self.ledger.run(work))

    async def report(self, decision_id: str, verdict: Verdict, principal: Principal) -> dict[str, Any]:
        """An incident. From a reviewer, operator or admin it confirms; a caller's puts a review first."""
        now = self.now()
        confirms = principal.may(Role.REVIEWER, Role.OPERATOR)

        def work(tx: Transaction) -> dict[str, Any]:
            row = self._review_for_report(tx, decision_id, principal, now=now)
            judge = judge_of(tx.connection, principal)
            if not confirms:
                change_review(tx, row["id"], priority=PRIORITY["report"])
                return {
                    "decision_id": decision_id,
                    "review_id": row["id"],
                    "confirmed": False,
                    "rollback": None,
                }
            check_not_own(row, judge)
            return {**self._settle(tx, row, verdict, judge, now=now, source="report"), "confirmed": True}

        return await self._told(await self.ledger.run(work))

    async def undo(self, review_id: str, principal: Principal) -> dict[str, Any]:
        """Take one's own last verdict back. It does not restore a phase, nor what a caller was told.

        The others' stand by themselves: the second is paired with whatever the first says in the end, and a
        third is wanted while these two differ.
        """
        now_us = to_us(self.now())

        def work(tx: Transaction) -> dict[str, Any]:
            row, judge = lock_review(tx, review_id), judge_of(tx.connection, principal)
            last = own_last(standing_verdicts(tx.connection, review_id), judge)
            if binds(row, last["source"]):
                raise Conflict("binding-verdict", "a binding verdict was given to the caller and stands")
            before = tally(tx, row)
            write_verdict(tx, row, None, judge, now_us=now_us, source="undo", supersedes=last)
            standing = standing_verdicts(tx.connection, review_id)
            change_review(tx, review_id, **_undone(row, last["source"], standing))
            recount(tx, review_id, before, now_us)
            return review_document(tx.connection, lock_review(tx, review_id), judge)

        return await self.ledger.run(work)

    async def explain(self, review_id: str, verdict: Verdict, principal: Principal) -> dict[str, Any]:
        """Give one's own verdict, which stays, another category or other notes.

        What was said before the model's answer was seen stays in the record, superseded. Raises `Conflict`
        where the decision is another one: that takes an undo.
        """
        now_us = to_us(self.now())

        def work(tx: Transaction) -> dict[str, Any]:
            row, judge = lock_review(tx, review_id), judge_of(tx.connection, principal)
            last = own_last(standing_verdicts(tx.connection, review_id), judge)
            if last["decision"] != verdict.decision:
                raise Conflict("already-judged", "your verdict is another one; undo it to judge anew")
            if (verdict.category, verdict.notes) != (last["category"], last["notes"]):
                write_verdict(tx, row, verdict, judge, now_us=now_us, source=last["source"], supersedes=last)
            return review_document(tx.connection, lock_review(tx, review_id), judge)

        return await self.ledger.run(work)

    def _settle(
        self,
        tx: Transaction,
        row: RowMapping,
        verdict: Verdict,
        judge: Judge,
        *,
        now: datetime,
        source: str,
    ) -> dict[str, Any]:
        before, superseded = tally(tx, row), standing_before(tx, row, source)
        written = write_verdict(
            tx, row, verdict, judge, now_us=to_us(now), source=source, supersedes=superseded
        )
        wanted = third_status(standing_verdicts(tx.connection, row["id"]), row["third_status"])
        change_review(tx, row["id"], third_status=wanted, **self._settled(row, written))
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
            "rollback": follow(tx, row, before, self.plane, now=now),
        }

    def _settled(self, row: RowMapping, verdict: dict[str, Any]) -> dict[str, Any]:
        """What a verdict makes of its review."""
        said, source = verdict["decision"], verdict["source"]
        if source == SECOND:
            return {"second_status": "judged", "second_verdict": said, "claimed_by": None}
        if row["kind"] == "binding" and not binds(row, source):
            return {"claimed_by": None} if source == THIRD else {}
        if source == THIRD:
            return {"verdict": said, "claimed_by": None}
        judged = {"status": "judged", "verdict": said, "judged_us": verdict["created_us"], "claimed_by": None}
        if source == "report":  # a third opinion, by somebody who may have seen the others
            return judged if row["second_status"] != "open" else {**judged, "second_status": "closed"}
        policy = policy_of(self.plane, row["rollout"])
        is_drawn = row["inclusion_probability"] is not None and row["second_status"] is None
        if policy is not None and is_drawn and doubled(row["decision_id"], policy.double_review_rate):
            judged["second_status"] = "open"
        return judged

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
        policy = policy_of(self.plane, decision["rollout"])
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

    async def _told(self, result: dict[str, Any]) -> dict[str, Any]:
        """Route by what changed at once, then tell who waits."""
        rollback = result.get("rollback")
        if rollback is not None:
            await self.plane.refresh_soon()
            self.notices.moved(rollback)
        if "human_decision" in result:
            VERDICTS.labels(result["rollout"], str(result["match"]).lower()).inc()
            self.notices.decided(result["decision_id"])
            self.notices.publish("review", {})
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
        with self.plane.database.read() as connection:
            judge = judge_of(connection, principal)
            wanted = Wanted(status, rollout, kind)
            rows = queue(connection, judge, wanted, limit=limit, offset=offset)
            return [review_document(connection, row, judge) for row in rows]

    def backlogs(self) -> dict[str, Backlog]:
        """The rollouts whose reviews wait too long, for a notice."""
        with self.plane.database.read() as connection:
            found = review_backlog(connection, to_us(self.now()))
        return {rollout: backlog for rollout, backlog in found.items() if backlog.late}


def own_last(standing: Sequence[RowMapping], judge: Judge) -> RowMapping:
    """A person's verdict that stands. Raises `Conflict` without any, `Forbidden` where all are others'."""
    if not standing:
        raise Conflict("nothing-to-undo", "this review has no verdict to undo")
    own = [verdict for verdict in standing if verdict["judge"] in judge.keys]
    if not own:
        raise Forbidden("not-your-verdict", "only the judge of a verdict can undo it")
    return own[-1]


def _undone(row: RowMapping, source: str, standing: Sequence[RowMapping]) -> dict[str, Any]:
    """What the review is without the verdict from there."""
    wanted = {"third_status": third_status(standing, row["third_status"])}
    if source == SECOND:
        again = "open" if row["status"] == "judged" else None
        return {**wanted, "second_status": again, "second_verdict": None}
    if row["kind"] == "binding":
        return wanted
    left = foremost(row, standing, binding=False)
    if left is not None:
        return {**wanted, "verdict": left["decision"]}
    opened = {**wanted, "status": "open", "verdict": None, "judged_us": None}
    return opened if row["second_status"] != "open" else {**opened, "second_status": None}
