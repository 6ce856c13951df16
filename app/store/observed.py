"""Which situations have been evidence in a window of time, and how many of them came from whom?"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, ColumnElement, Table, and_, delete, or_, select, text

from app.domain.admission import Claim, Heard, is_within_caps
from app.domain.counters import ALL, Metric
from app.store.tables import observed_by, observed_situations
from app.store.transaction import CounterKey, Transaction

WHOLE_EPOCH = -1  # the number of the window that holds the epoch's first actors
ACTORS_AT_MOST = 100  # are told apart in an epoch

b = observed_by.c
_IN_ALL, _KEYS = "all", "keys"
_ROWS = 5_000  # deleted in one step


class Window(NamedTuple):
    """A stretch of time in which a version's observations are told apart; `number` counts from 1970."""

    rollout: str
    version: str
    epoch: int
    number: int


class Asked(NamedTuple):
    """An observation that wants to be evidence. `situation` and `actor` are keyed hashes."""

    window: Window
    situation: bytes
    actor: str
    key_id: str
    share: float  # of the window, for one actor
    minute: int


def claim_all(tx: Transaction, asked: Sequence[Asked]) -> list[Claim]:
    """A claim for each, in the order given."""
    # Window by window in one order everywhere: two servers that claim at once cannot deadlock.
    order = sorted(range(len(asked)), key=lambda number: asked[number].window)
    claims = {number: claim(tx, asked[number]) for number in order}
    return [claims[number] for number in range(len(asked))]


def claim(tx: Transaction, asked: Asked) -> Claim:
    """Admit an observation unless its situation or its actor was heard enough; counts new actors.

    Servers claim one after another, so that the caps hold over all of them. Only what is admitted writes.
    """
    if _is_known(tx.connection, asked):
        return Claim.REPEATED
    heard, is_new_actor = _heard(tx.connection, asked)
    if not is_within_caps(heard, asked.share):
        return Claim.CAPPED
    named = {**asked.window._asdict(), "situation": asked.situation}
    if not tx.connection.execute(_INSERT, named).rowcount:
        return Claim.REPEATED  # by another server, a moment ago
    rows = [(*asked.window, who, 1) for who in (_IN_ALL, _actor(asked), _key(asked))]
    if not heard.of_key:
        rows.append((*asked.window, _KEYS, 1))
    if is_new_actor:
        epoch = asked.window._replace(number=WHOLE_EPOCH)
        rows += [(*epoch, _IN_ALL, 1), (*epoch, _actor(asked), 1)]
        counter = CounterKey(*asked.window[:3], asked.minute, Metric.ACTORS.value, ALL)
        tx.count(counter)
    tx.add(observed_by, rows)
    return Claim.ADMITTED


def windows(connection: Connection) -> list[Window]:
    """Every window of which something is kept."""
    query = select(b.rollout, b.version, b.epoch, b.time_window).where(b.who == _IN_ALL)
    return [Window(*row) for row in connection.execute(query)]


def forget(tx: Transaction, window: Window) -> bool:
    """Delete a part of what is kept of a window; false once nothing is left."""
    # What names the window goes last, so that an interrupted deletion is found again.
    for table, key, more in (
        (observed_situations, observed_situations.c.situation, None),
        (observed_by, b.who, b.who != _IN_ALL),
        (observed_by, b.who, None),
    ):
        of_window = _of(table, window) if more is None else and_(_of(table, window), more)
        some = select(key).where(of_window).limit(_ROWS)
        if tx.connection.execute(delete(table).where(of_window, key.in_(some))).rowcount:
            return True
    return False


_INSERT = text(
    "INSERT INTO observed_situations (rollout, version, epoch, time_window, situation) "
    "VALUES (:rollout, :version, :epoch, :number, :situation) ON CONFLICT DO NOTHING"
)


def _is_known(connection: Connection, asked: Asked) -> bool:
    s = observed_situations.c.situation
    query = select(s).where(_of(observed_situations, asked.window), s == asked.situation)
    return connection.execute(query).first() is not None


def _heard(connection: Connection, asked: Asked) -> tuple[Heard, bool]:
    """What the window has heard, and whether the actor is among the epoch's first and new in it."""
    in_window, in_epoch = _of(observed_by, asked.window), _of(observed_by, asked.window, WHOLE_EPOCH)
    connection.execute(select(b.n).where(in_window, b.who == _IN_ALL).with_for_update())
    actor, key = _actor(asked), _key(asked)
    query = select(b.time_window, b.who, b.n).where(
        or_(
            and_(in_window, b.who.in_((_IN_ALL, _KEYS, actor, key))),
            and_(in_epoch, b.who.in_((_IN_ALL, actor))),
        )
    )
    n = {(number, who): n for number, who, n in connection.execute(query)}
    heard = Heard(*(n.get((asked.window.number, who), 0) for who in (_IN_ALL, actor, key, _KEYS)))
    is_new = (WHOLE_EPOCH, actor) not in n and n.get((WHOLE_EPOCH, _IN_ALL), 0) < ACTORS_AT_MOST
    return heard, is_new


def _of(table: Table, window: Window, number: int | None = None) -> ColumnElement[bool]:
    c = table.c
    return and_(
        c.rollout == window.rollout,
        c.version == window.version,
        c.epoch == window.epoch,
        c.time_window == (window.number if number is None else number),
    )


def _actor(asked: Asked) -> str:
    return f"actor:{asked.actor}"


def _key(asked: Asked) -> str:
    return f"key:{asked.key_id}"
