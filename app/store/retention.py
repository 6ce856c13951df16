"""How do old decisions leave the ledger without breaking its chain?"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

from sqlalchemy import Column, Connection, RowMapping, delete, func, select, update

from app.store.hashing import decode_entries
from app.store.ids import new_id
from app.store.tables import (
    advisories,
    candidate_advisories,
    chain,
    decisions,
    idempotency,
    reasonings,
    retention_gate,
    retentions,
    situations,
)
from app.store.transaction import Transaction

_BATCHES = 100  # of an instance's chain, at most, in one step
_KEYS = 500  # a statement

# Which chained rows go, and by which key what belongs to them.
_LEAVING = (
    ("decisions", decisions.c.id),
    ("decisions", situations.c.decision_id),
    ("advisories", advisories.c.decision_id),
    ("candidate_advisories", candidate_advisories.c.decision_id),
    ("reasonings", reasonings.c.decision_id),
)


class Removal(NamedTuple):
    """How many commit batches one step emptied, and how many rows that were in them."""

    batches: int
    rows: int


def remove_old(tx: Transaction, *, older_than_us: int, now_us: int) -> Removal:
    """Delete decisions, advisories and what belongs to them from commit batches older than that.

    One bounded step: call it in transactions of its own until `batches` is 0. Whole batches go, and what
    went is itself a row in the chain, so verification knows which rows may be missing. Verdicts and
    transitions stay.
    """
    reached = horizons(tx.connection)
    total = Removal(0, 0)
    tx.connection.execute(update(retention_gate).values(is_open=True))
    for instance in instances(tx.connection):
        batches = _old_batches(tx.connection, instance, reached.get(instance, 0), older_than_us)
        if batches:
            rows = _empty(tx.connection, batches)
            _record(tx, instance, through_seq=batches[-1]["seq"], removed=rows, now_us=now_us)
            total = Removal(total.batches + len(batches), total.rows + rows)
    tx.connection.execute(update(retention_gate).values(is_open=False))
    return total


def forget_expired(tx: Transaction, *, now_us: int) -> int:
    """Delete idempotency tokens that have run out; returns how many."""
    return tx.connection.execute(delete(idempotency).where(idempotency.c.expires_us <= now_us)).rowcount


def horizons(connection: Connection) -> dict[str, int]:
    """For each instance the last batch that retention has emptied."""
    reached = func.max(retentions.c.through_seq).label("reached")
    last = select(retentions.c.instance, reached).group_by(retentions.c.instance)
    return {row.instance: row.reached for row in connection.execute(last)}


def instances(connection: Connection) -> list[str]:
    """All that ever committed, in one order everywhere."""
    return list(connection.execute(select(chain.c.instance).distinct().order_by(chain.c.instance)).scalars())


def _old_batches(
    connection: Connection, instance: str, reached: int, older_than_us: int
) -> Sequence[RowMapping]:
    following = select(chain).where(chain.c.instance == instance, chain.c.seq > reached)
    rows = connection.execute(following.order_by(chain.c.seq).limit(_BATCHES)).mappings()
    return list(takewhile(lambda row: row["created_us"] < older_than_us, rows))


def _empty(connection: Connection, batches: Iterable[RowMapping]) -> int:
    keys: dict[str, list[str]] = defaultdict(list)
    for batch in batches:
        for entry in decode_entries(batch["entries"]):
            keys[entry.table].append(entry.id)
    return sum(_delete(connection, key, keys[chained]) for chained, key in _LEAVING)


def _delete(connection: Connection, key: Column[str], values: Sequence[str]) -> int:
    removed = 0
    for start in range(0, len(values), _KEYS):
        these = delete(key.table).where(key.in_(values[start : start + _KEYS]))
        removed += connection.execute(these).rowcount
    return removed


def _record(tx: Transaction, instance: str, *, through_seq: int, removed: int, now_us: int) -> None:
    row = {
        "id": new_id(),
        "created_us": now_us,
        "instance": instance,
        "through_seq": through_seq,
        "removed": removed,
    }
    tx.insert(retentions, row)
