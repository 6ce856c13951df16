"""Which situations have been evidence in a window of time, and how many of them came from whom?"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Integer,
    Table,
    and_,
    bindparam,
    delete,
    literal,
    or_,
    select,
    text,
)

from app.domain.admission import Claim, Heard, is_within_caps
from app.domain.counters import ALL, Metric
from app.store.tables import observed_by, observed_situations
from app.store.transaction import CounterKey, Transaction

WHOLE_EPOCH = -1  # the number of the window that holds the epoch's first actors
ACTORS_AT_MOST = 100  # are told apart in an epoch

b, s = observed_by.c, observed_situations.c
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
    actor, key = f"actor:{asked.actor}", f"key:{asked.key_id}"
    named = {**asked.window._asdict(), "situation": asked.situation, "actor": actor, "key": key}
    if tx.connection.execute(_KNOWN, named).first() is not None:
        return Claim.REPEATED
    tx.connection.execute(_TURN, named)
    n = {(number, who): n for number, who, n in tx.connection.execute(_HEARD, named)}
    heard = Heard(*(n.get((asked.window.number, who), 0) for who in (_IN_ALL, actor, key, _KEYS)))
    if not is_within_caps(heard, asked.share):
        return Claim.CAPPED
    if not tx.connection.execute(_INSERT, named).rowcount:
        return Claim.REPEATED  # by another server, a moment ago
    rows = [(*asked.window, who, 1) for who in (_IN_ALL, actor, key)]
    if not heard.of_key:
        rows.append((*asked.window, _KEYS, 1))
    epoch = asked.window._replace(number=WHOLE_EPOCH)
    if (WHOLE_EPOCH, actor) not in n and n.get((WHOLE_EPOCH, _IN_ALL), 0) < ACTORS_AT_MOST:
        rows += [(*epoch, _IN_ALL, 1), (*epoch, actor, 1)]
        tx.count(CounterKey(*epoch[:3], asked.minute, Metric.ACTORS.value, ALL))
    tx.add(observed_by, rows)
    return Claim.ADMITTED


def windows(connection: Connection) -> list[Window]:
    """Every window of which something is kept."""
    query = select(b.rollout, b.version, b.epoch, b.time_window).where(b.who == _IN_ALL)
    return [Window(*row) for row in connection.execute(query)]


def forget(tx: Transaction, window: Window) -> bool:
    """Delete a part of what is kept of a window; false once nothing is left."""
    return any(tx.connection.execute(part, window._asdict()).rowcount for part in _PARTS)


def _of(table: Table, number: ColumnElement[int] | None = None) -> ColumnElement[bool]:
    """The rows of the window that a statement's parameters name."""
    c, own = table.c, bindparam("number", type_=Integer)
    keys = [column == bindparam(column.name) for column in (c.rollout, c.version, c.epoch)]
    return and_(*keys, c.time_window == (own if number is None else number))


# Made once: a claim asks all of them, and to write one anew takes longer than to run it.
_KNOWN = select(literal(1)).where(_of(observed_situations), s.situation == bindparam("situation"))
_TURN = select(b.n).where(_of(observed_by), b.who == _IN_ALL).with_for_update()
_HEARD = select(b.time_window, b.who, b.n).where(
    or_(
        and_(_of(observed_by), b.who.in_((_IN_ALL, _KEYS, bindparam("actor"), bindparam("key")))),
        and_(_of(observed_by, literal(WHOLE_EPOCH)), b.who.in_((_IN_ALL, bindparam("actor")))),
    )
)
_INSERT = text(
    "INSERT INTO observed_situations (rollout, version, epoch, time_window, situation) "
    "VALUES (:rollout, :version, :epoch, :number, :situation) ON CONFLICT DO NOTHING"
)


def _some(table: Table, key: ColumnElement[Any], *more: ColumnElement[bool]) -> Delete:
    of_window = and_(_of(table), *more)
    return delete(table).where(of_window, key.in_(select(key).where(of_window).limit(_ROWS)))


# What names the window goes last, so that an interrupted deletion is found again.
_PARTS = (
    _some(observed_situations, s.situation),
    _some(observed_by, b.who, b.who != _IN_ALL),
    _some(observed_by, b.who),
)
