"""Which entries of a batch may be written, and how do they become few statements?"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from sqlalchemy import Connection, Table, select

from app.store.entry import Entry, Guard
from app.store.tables import plane, rollouts
from app.store.transaction import Transaction


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
