"""People say when promotions rest."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, RowMapping

from app.domain.clock import instant, rfc3339, rfc3339_or_none, to_us
from app.domain.freeze import EVERY, WEEK, Freeze, FreezeKind, Frozen, frozen
from app.domain.role import Principal, Role
from app.errors import Forbidden, InvalidInput, NotFound
from app.services.notices import Notices
from app.services.plane import Plane
from app.store import freezes as store
from app.store.ids import new_id
from app.store.ledger import Ledger
from app.store.rollouts import read_plane, record_transition
from app.store.tables import freezes
from app.store.transaction import Transaction

_YEARS = range(2000, 2200)


def frozen_now(connection: Connection, rollout: str, now: datetime) -> Frozen | None:
    """What stands against a promotion, an activation above shadow or more exposure, if anything does."""
    return frozen(store.standing(connection), rollout, now)


@dataclass(frozen=True, slots=True)
class Freezes:
    plane: Plane
    ledger: Ledger
    notices: Notices
    now: Callable[[], datetime]

    def all(self) -> list[dict[str, Any]]:
        """Every freeze that nobody ended, oldest first."""
        now = self.now()
        with self.plane.database.read() as connection:
            return [_document(row, now) for row in store.rows(connection)]

    async def add(
        self,
        *,
        kind: str,
        rollout: str,
        starts_at: str,
        ends_at: str,
        weekly: bool,
        zone: str,
        reason: str,
        by: Principal,
    ) -> dict[str, Any]:
        """Declare a freeze. Times without an offset are the zone's.

        Raises `InvalidInput`, `NotFound` for the rollout, and `Forbidden` where hours would be allowed beside
        those that are: that loosens, and takes an approver.
        """
        now = self.now()
        if rollout != EVERY:
            self.plane.view.policy.book.get(rollout)
        begin, end = _at("starts_at", starts_at, zone), _at("ends_at", ends_at, zone)
        freeze = Freeze(new_id(), _kind(kind), rollout, begin, end, weekly, zone, reason)
        _check(freeze, now)

        def work(tx: Transaction) -> tuple[dict[str, Any], dict[str, Any]]:
            others = [each for each in store.standing(tx.connection) if each.kind is FreezeKind.ALLOW]
            loosens = any(EVERY in (rollout, other.rollout) or other.rollout == rollout for other in others)
            if freeze.kind is FreezeKind.ALLOW and loosens and not by.may(Role.APPROVER):
                raise Forbidden("role", f"further hours are allowed by an {Role.APPROVER}: that loosens")
            row = _row(freeze, by, now)
            tx.insert(freezes, row)
            shown = _document(row, now)
            return shown, _recorded(tx, shown, by, reason, now)

        return self._told(*await self.ledger.run(work))

    async def end(self, freeze_id: str, *, reason: str, by: Principal) -> dict[str, Any]:
        """End a freeze, before or after its time. Raises `NotFound` where no such one stands."""
        now = self.now()

        def work(tx: Transaction) -> tuple[dict[str, Any], dict[str, Any]]:
            row = store.end(tx, freeze_id, now_us=to_us(now), by_key=by.key_id)
            if row is None:
                raise NotFound("freeze", freeze_id, known=[each.id for each in store.standing(tx.connection)])
            shown = _document(row, now)
            return shown, _recorded(tx, shown, by, reason, now)

        return self._told(*await self.ledger.run(work))

    def _told(self, shown: dict[str, Any], transition: dict[str, Any]) -> dict[str, Any]:
        self.notices.moved(transition)
        return {**shown, "transition": transition}


def _kind(text: str) -> FreezeKind:
    if text not in list(FreezeKind):
        raise InvalidInput([("kind", f"must be one of {', '.join(FreezeKind)}")])
    return FreezeKind(text)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidInput([("zone", "must be an IANA time zone such as Europe/Berlin")]) from error


def _at(field: str, text: str, zone: str) -> datetime:
    place = _zone(zone)
    try:
        at = instant(text, zone=place)
    except ValueError as error:
        raise InvalidInput([(field, "must be a time such as 2026-12-24T18:00")]) from error
    if at.year not in _YEARS:
        raise InvalidInput([(field, f"must lie between {_YEARS.start} and {_YEARS.stop}")])
    return at


def _check(freeze: Freeze, now: datetime) -> None:
    length = freeze.ends_at - freeze.starts_at
    errors = []
    if length <= 0 * WEEK:
        errors.append(("ends_at", "must lie after starts_at"))
    if freeze.weekly and length >= WEEK:
        errors.append(("ends_at", "must lie less than a week after starts_at where it comes weekly"))
    if not freeze.weekly and freeze.ends_at <= now:
        errors.append(("ends_at", "must lie in the future"))
    if errors:
        raise InvalidInput(errors)


def _row(freeze: Freeze, by: Principal, now: datetime) -> dict[str, Any]:
    same = {name: getattr(freeze, name) for name in ("id", "rollout", "weekly", "zone", "reason")}
    return {
        **same,
        "kind": freeze.kind.value,
        "starts_us": to_us(freeze.starts_at),
        "ends_us": to_us(freeze.ends_at),
        "created_us": to_us(now),
        "created_by": by.key_id,
        "ended_us": None,
        "ended_by": None,
    }


def _document(row: RowMapping | dict[str, Any], now: datetime) -> dict[str, Any]:
    """`active`: its window is open now, whether that forbids or allows."""
    return {
        **{name: row[name] for name in ("id", "kind", "rollout", "weekly", "zone", "reason")},
        "starts_at": rfc3339(row["starts_us"]),
        "ends_at": rfc3339(row["ends_us"]),
        "active": row["ended_us"] is None and store.freeze_of(row).ends(now) is not None,
        "created_at": rfc3339(row["created_us"]),
        "created_by": row["created_by"],
        "ended_at": rfc3339_or_none(row["ended_us"]),
        "ended_by": row["ended_by"],
    }


def _recorded(
    tx: Transaction, shown: dict[str, Any], by: Principal, reason: str, now: datetime
) -> dict[str, Any]:
    """A freeze's beginning or end in the history, its id where it stands."""
    before, after = (shown["id"], None) if shown["ended_at"] else (None, shown["id"])
    return record_transition(
        tx,
        rollout=shown["rollout"],
        kind="freeze",
        before={"freeze": before},
        after={"freeze": after},
        actor=by.key_id,
        automatic=False,
        reason=reason,
        evidence=shown,
        revision=read_plane(tx.connection).revision,
        now_us=to_us(now),
    )
