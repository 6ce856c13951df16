"""What may the hot path ask the ledger to write, and how do many such entries become few statements?"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Table, select

from app.store.tables import metadata, plane, rollouts
from app.store.transaction import CounterKey, Transaction

Row = tuple[Table, Mapping[str, Any]]


class Guard(NamedTuple):
    """Holds while the rollout has this revision and the kill switch is released."""

    rollout: str
    revision: int


class Entry(NamedTuple):
    """Rows and counts that are written together or not at all.

    The first row names the entry: a replay skips it where that row is there already, so its table has a
    key of one column. `otherwise` is written instead where the guard does not hold or cannot be checked;
    its own guard is not asked, and its first row has another id.
    """

    rows: tuple[Row, ...]
    counts: tuple[tuple[CounterKey, int], ...] = ()
    guard: Guard | None = None
    otherwise: "Entry | None" = None

    @property
    def unguarded(self) -> "Entry | None":
        """What may be written without asking the database."""
        return self if self.guard is None else self.otherwise


class Receipt(NamedTuple):
    """`entry` is recorded for good: committed, or fsynced to the journal."""

    entry: Entry
    journaled: bool


_Frame = tuple[list[tuple[str, dict[str, Any]]], list[tuple[CounterKey, int]]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Frame).decode


def encode(entry: Entry) -> bytes:
    """The journal's form of an entry: its rows and counts. Raises `TypeError` or `ValueError`."""
    return _encode(([(str(table.name), dict(values)) for table, values in entry.rows], entry.counts))


def decode(payload: bytes) -> Entry:
    """Raises `msgspec.DecodeError` or `KeyError` where the payload is none of ours."""
    rows, counts = _decode(payload)
    return Entry(tuple((metadata.tables[name], values) for name, values in rows), tuple(counts))


def write(tx: Transaction, entries: Sequence[Entry]) -> list[Entry | None]:
    """Write each entry or, where its guard does not hold, its `otherwise`; returns what was written.

    The guards' rows stay share-locked until the commit, so what held here holds in the ledger's order.
    """
    guards = {entry.guard for entry in entries if entry.guard is not None}
    holding = _holding(tx.connection, guards) if guards else frozenset()
    chosen = [
        entry if entry.guard is None or entry.guard in holding else entry.otherwise for entry in entries
    ]
    _insert(tx, (entry for entry in chosen if entry is not None))
    return chosen


def write_missing(tx: Transaction, entries: Sequence[Entry]) -> None:
    """Write the entries whose first row is not there yet: a replay may repeat what was committed."""
    present = _present(tx.connection, entries)
    fresh: dict[tuple[str, object], Entry] = {}
    for entry in entries:
        name = _name(entry)
        if name not in present:
            fresh.setdefault(name, entry)
    _insert(tx, fresh.values())


def _holding(connection: Connection, guards: AbstractSet[Guard]) -> AbstractSet[Guard]:
    names = sorted({guard.rollout for guard in guards})
    revisions = select(rollouts.c.name, rollouts.c.revision).where(rollouts.c.name.in_(names))
    shared = revisions.order_by(rollouts.c.name).with_for_update(read=True)
    actual = {row.name: row.revision for row in connection.execute(shared)}
    killed = connection.execute(select(plane.c.kill_switch).with_for_update(read=True)).scalar_one()
    return (
        frozenset() if killed else {guard for guard in guards if actual.get(guard.rollout) == guard.revision}
    )


def _present(connection: Connection, entries: Sequence[Entry]) -> set[tuple[str, object]]:
    wanted: dict[Table, list[object]] = defaultdict(list)
    for entry in entries:
        wanted[entry.rows[0][0]].append(_name(entry)[1])
    found: set[tuple[str, object]] = set()
    for table, keys in wanted.items():
        (key,) = table.primary_key.columns
        found.update(
            (table.name, value) for value in connection.execute(select(key).where(key.in_(keys))).scalars()
        )
    return found


def _name(entry: Entry) -> tuple[str, object]:
    table, values = entry.rows[0]
    (key,) = table.primary_key.columns
    return table.name, values[key.name]


def _insert(tx: Transaction, entries: Iterable[Entry]) -> None:
    by_table: dict[Table, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in entries:
        for table, values in entry.rows:
            by_table[table].append(values)
        for key, n in entry.counts:
            tx.count(key, n)
    for table, rows in by_table.items():
        tx.insert_many(table, rows)
