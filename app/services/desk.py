"""What does a reviewer have before them, what comes next, and how do they get on?"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping

from app.domain.clock import rfc3339, rfc3339_or_none, to_us
from app.domain.role import Principal, Role
from app.domain.sampling import ReviewMode
from app.domain.sequential import lower_bound, upper_bound
from app.errors import Conflict, Forbidden, InvalidInput
from app.services.documents import review_document
from app.services.plane import Plane
from app.services.verdicts import binds, category_of, check_not_own, claim
from app.store import marks
from app.store.decisions import advisory_wire, candidate_advisory, find
from app.store.ledger import Ledger
from app.store.review_queue import Wanted, held_by, next_return_us, queue, waiting
from app.store.reviews import LATER, Judge, change_review, judge_of, lock_review, review_row
from app.store.satisfaction import answered_today
from app.store.transaction import Transaction

HAND = 5  # reviews that one person holds at a time
MAX_NOTE = 2_000  # characters

_DAY_US, _HOUR_US = 86_400_000_000, 3_600_000_000
_ALPHA = 0.05  # of the interval around one's own agreement
_PACE_DAYS = 30


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person wants to judge: of one rollout, of one kind, or what somebody flagged."""

    rollout: str | None = None
    kind: str | None = None
    flagged: bool = False

    @property
    def wanted(self) -> Wanted:
        return Wanted(rollout=self.rollout, kind=self.kind, flagged=self.flagged)


@dataclass(frozen=True, slots=True)
class Desk:
    plane: Plane
    ledger: Ledger
    now: Callable[[], datetime]

    async def take(self, choice: Choice, principal: Principal) -> dict[str, Any] | None:
        """Claim the next review; None where nothing is left. Raises `Conflict` where too many are in hand."""
        now_us = to_us(self.now())

        def work(tx: Transaction) -> dict[str, Any] | None:
            judge = judge_of(tx.connection, principal)
            held = {row["id"] for row in held_by(tx.connection, judge, choice.wanted, now_us)}
            if len(held) >= HAND:
                raise Conflict("hand-full", f"you hold {HAND} reviews; judge or skip one of them first")
            return _first(tx, _offered(tx.connection, judge, choice, now_us, beside=held), judge, now_us)

        return await self.ledger.run(work)

    async def proceed(
        self, choice: Choice, principal: Principal, *, wanted: str | None = None
    ) -> dict[str, Any] | None:
        """The oldest in hand of that choice, claimed anew, else the next, `wanted` where that is still free."""
        now_us = to_us(self.now())

        def work(tx: Transaction) -> dict[str, Any] | None:
            judge = judge_of(tx.connection, principal)
            held = _first(tx, held_by(tx.connection, judge, choice.wanted, now_us), judge, now_us)
            if held is not None:
                return held
            offered = _offered(tx.connection, judge, choice, now_us, beside=set())
            offered.sort(key=lambda row: row["id"] != wanted)
            return _first(tx, offered, judge, now_us)

        return await self.ledger.run(work)

    async def hold(self, review_id: str, principal: Principal) -> dict[str, Any]:
        """Claim this review, or go on holding it. Raises `Conflict` where somebody else does."""
        now_us = to_us(self.now())

        def work(tx: Transaction) -> dict[str, Any]:
            return _claimed(tx, review_id, judge_of(tx.connection, principal), now_us)

        return await self.ledger.run(work)

    async def skip(self, review_id: str, principal: Principal) -> None:
        """Let a review go; this person is offered others for an hour, or a minute where a caller waits."""
        now_us = to_us(self.now())

        def work(tx: Transaction) -> None:
            row, judge = lock_review(tx, review_id), judge_of(tx.connection, principal)
            if row["claimed_by"] == judge.key_id:
                change_review(tx, review_id, claimed_by=None)
            marks.mark(tx, review_id, judge, "skip", now_us=now_us)

        await self.ledger.run(work)

    async def flag(self, review_id: str, note: str, principal: Principal) -> None:
        """Show a review to an operator, with a note."""
        if len(note) > MAX_NOTE or "\x00" in note:
            raise InvalidInput([("note", f"must have at most {MAX_NOTE} characters, none of them NUL")])
        now_us = to_us(self.now())

        def work(tx: Transaction) -> None:
            row, judge = lock_review(tx, review_id), judge_of(tx.connection, principal)
            check_not_own(row, judge)
            marks.mark(tx, review_id, judge, "flag", now_us=now_us, note=note.strip() or None)

        await self.ledger.run(work)

    async def settle_flag(self, review_id: str, principal: Principal) -> None:
        """An operator has seen to it; a reviewer takes their own flag back."""

        def work(tx: Transaction) -> None:
            judge = judge_of(tx.connection, principal)
            everybodys = principal.may(Role.OPERATOR)
            marks.unmark(tx, review_id, "flag", judge=None if everybodys else judge)

        await self.ledger.run(work)

    async def reveal(self, review_id: str, principal: Principal) -> dict[str, Any]:
        """A judged review with all that engine, model and person said; of a blind one it is kept when that was shown.

        Raises `Forbidden` for whoever has given no verdict on it that stands.
        """
        now_us = to_us(self.now())

        def work(tx: Transaction) -> dict[str, Any]:
            row, judge = lock_review(tx, review_id), judge_of(tx.connection, principal)
            own = marks.own_verdict(tx.connection, review_id, judge)
            if own is None:
                raise Forbidden("not-your-verdict", "only who has judged a review sees it judged here")
            is_blind = row["mode"] == ReviewMode.BLIND or own["source"] in LATER
            if is_blind and "reveal" not in marks.marks_of(tx.connection, review_id, judge):
                marks.mark(tx, review_id, judge, "reveal", now_us=now_us)
            return _revealed(tx.connection, row, judge, own)

        return await self.ledger.run(work)

    def one(self, review_id: str, principal: Principal) -> dict[str, Any]:
        """A review as this person may see it now: judged, where they have judged it."""
        with self.plane.database.read() as connection:
            row, judge = review_row(connection, review_id), judge_of(connection, principal)
            check_not_own(row, judge)
            own = marks.own_verdict(connection, review_id, judge)
            return (
                _document(connection, row, judge) if own is None else _revealed(connection, row, judge, own)
            )

    def last(self, principal: Principal) -> dict[str, Any] | None:
        """Tell this person's latest verdict that stands; `binds`: it stands for good."""
        with self.plane.database.read() as connection:
            verdict = marks.last_verdict(connection, judge_of(connection, principal))
            if verdict is None:
                return None
            stands = binds(review_row(connection, verdict["review_id"]), verdict["source"])
        return {**{name: verdict[name] for name in ("review_id", "decision", "rollout")}, "binds": stands}

    def hand(self, choice: Choice, principal: Principal) -> list[str]:
        """The reviews of that choice that this person holds, oldest first."""
        with self.plane.database.read() as connection:
            held = held_by(connection, judge_of(connection, principal), choice.wanted, to_us(self.now()))
        return [row["id"] for row in held]

    def resumed(self, choice: Choice, principal: Principal) -> dict[str, Any] | None:
        """The review in hand of that choice that this person saw last."""
        with self.plane.database.read() as connection:
            judge = judge_of(connection, principal)
            held = held_by(connection, judge, choice.wanted, to_us(self.now()))
            last = max(held, key=lambda row: row["claim_expires_us"], default=None)
            return None if last is None else _document(connection, last, judge)

    def ahead(self, choice: Choice, principal: Principal, *, after: str) -> dict[str, Any] | None:
        """The review that `proceed` would give once `after` is done with; nothing is claimed."""
        now_us = to_us(self.now())
        with self.plane.database.read() as connection:
            judge = judge_of(connection, principal)
            held = [row for row in held_by(connection, judge, choice.wanted, now_us) if row["id"] != after]
            rows = held or _offered(connection, judge, choice, now_us, beside={after})
            return _document(connection, rows[0], judge) if rows else None

    def flags(self, principal: Principal) -> list[dict[str, Any]]:
        """What is flagged, latest first; a note is for its author and for operators, since it may tell an answer."""
        with self.plane.database.read() as connection:
            judge, found = judge_of(connection, principal), marks.flagged(connection)
        is_operator = principal.may(Role.OPERATOR)
        return [_flag(row, settles=is_operator or row["judge"] in judge.keys) for row in found]

    def pace(self, principal: Principal) -> dict[str, Any]:
        """Today's work (UTC), what waits, and how far this person's verdicts agree with the model's answers.

        `caller`: the review of one who waits and whom this person may take now.
        """
        now_us = to_us(self.now())
        with self.plane.database.read() as connection:
            judge = judge_of(connection, principal)
            done = marks.pace(
                connection,
                judge,
                since_us=now_us - _PACE_DAYS * _DAY_US,
                day_us=now_us - now_us % _DAY_US,
                hour_us=now_us - _HOUR_US,
            )
            free = Wanted(free_us=now_us, waits=True)
            held = {row["id"] for row in held_by(connection, judge, Wanted(waits=True), now_us)}
            callers = queue(connection, judge, free, limit=len(held) + 1)
            return {
                "caller": next((row["id"] for row in callers if row["id"] not in held), None),
                "today": done["today"],
                "hour": done["hour"],
                "days": _PACE_DAYS,
                "waiting": waiting(connection),
                "returns_at": rfc3339_or_none(next_return_us(connection, judge, now_us)),
                "agreement": {
                    mode.value: _agreement(done[mode.value], done[f"{mode.value}_agreed"])
                    for mode in ReviewMode
                },
                "asked": not answered_today(connection, key_id=principal.key_id, now_us=now_us),
            }


def _offered(
    connection: Connection,
    judge: Judge,
    choice: Choice,
    now_us: int,
    *,
    beside: set[str],
) -> list[RowMapping]:
    """The next few, a waiting caller's before all, without those that are in hand already.

    Where nothing else is left, also the waiting callers that this person has just skipped.
    """
    wanted = replace(choice.wanted, free_us=now_us)
    enough = len(beside) + HAND
    urgent = []
    if choice.kind is None:
        urgent = queue(connection, judge, replace(wanted, kind="binding"), limit=enough)
    rows = urgent + queue(connection, judge, wanted, limit=enough + len(urgent))
    by_id = {row["id"]: row for row in rows if row["id"] not in beside}
    if not by_id:
        skipped = queue(connection, judge, replace(wanted, waits=True, skipped=True), limit=enough)
        return [row for row in skipped if row["id"] not in beside]
    return list(by_id.values())


def _first(tx: Transaction, rows: list[RowMapping], judge: Judge, now_us: int) -> dict[str, Any] | None:
    """The first of these that can be claimed: of one somebody was faster, of another the time is over."""
    for row in rows:
        with suppress(Conflict):
            return _claimed(tx, row["id"], judge, now_us)
    return None


def _claimed(tx: Transaction, review_id: str, judge: Judge, now_us: int) -> dict[str, Any]:
    claim(tx, lock_review(tx, review_id), judge, now_us)
    return _document(tx.connection, lock_review(tx, review_id), judge)


def _document(connection: Connection, row: RowMapping, judge: Judge) -> dict[str, Any]:
    """The `review` shape with this person's own marks; `judged_before`: they took a verdict on it back."""
    own, document = marks.marks_of(connection, row["id"], judge), review_document(connection, row, judge)
    judged_before = document["asked_as"] == "first" and marks.had_judged(connection, row["id"], judge)
    return {
        **document,
        **(_model_said(connection, row) if judged_before else {}),
        "flagged": own["flag"]["note"] or "" if "flag" in own else None,
        "judged_before": judged_before,
        "own": None,
    }


def _model_said(connection: Connection, row: RowMapping) -> dict[str, Any]:
    """What a blind review tells whoever has judged it: from then on they judge it assisted."""
    wide = find(connection, row["decision_id"])
    assert wide is not None
    return {
        "mode": ReviewMode.ASSISTED,
        "advisory": advisory_wire(wide),
        "inclusion_probability": row["inclusion_probability"],
        "decision": row["first_decision"],
    }


def _revealed(connection: Connection, row: RowMapping, judge: Judge, own: RowMapping) -> dict[str, Any]:
    """A judged review: the model's answer whatever still waits, and one's own verdict, not the others'."""
    document, seen = _document(connection, row, judge), candidate_advisory(connection, row["decision_id"])
    return {
        **document,
        **_model_said(connection, row),
        "mode": ReviewMode.BLIND if own["source"] in LATER else document["mode"],
        "candidate": None if seen is None else advisory_wire(seen),
        "own": {
            **{name: own[name] for name in ("decision", "category", "notes", "source")},
            "presumed": category_of(own),
            "at": rfc3339(own["created_us"]),
        },
    }


def _agreement(n: int, agreed: int) -> dict[str, Any]:
    """A share with its interval, each side anytime-valid."""
    return {
        "n": n,
        "rate": agreed / n if n else None,
        "lower": lower_bound(n, agreed, _ALPHA) if n else None,
        "upper": upper_bound(n, agreed, _ALPHA) if n else None,
    }


def _flag(row: RowMapping, *, settles: bool) -> dict[str, Any]:
    """A flag; its note is shown to those who may settle it."""
    return {
        **{name: row[name] for name in ("review_id", "decision_id", "rollout", "review_kind")},
        "by": row["name"] or row["judge"],
        "at": rfc3339(row["created_us"]),
        "note": row["note"] if settles else None,
        "settles": settles,
    }
