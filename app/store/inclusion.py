"""In which commit batch is one decision, and does that batch hold?"""

from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, select

from app.store.chain import Verification, verify_batch
from app.store.retention import instances
from app.store.tables import chain, decisions

# A decision is committed within moments, or after an outage: so far its batch is looked for.
_BEFORE_US = 2_000_000
_BATCHES = 5_000


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A batch of an instance's chain, and whether its rows and its neighbours are as it says."""

    instance: str
    seq: int
    created_us: int
    hash: str
    found: Verification


def inclusion(connection: Connection, decision_id: str) -> Inclusion | None:
    """Verify the batch that committed a decision; None where it is in none of those after its time.

    Bounded: it reads one batch with its rows, however long the history is. That the whole chain holds takes
    `app.store.chain.verify`.
    """
    at_us = connection.execute(select(decisions.c.created_us).where(decisions.c.id == decision_id)).scalar()
    if at_us is None:
        return None
    named = chain.c.entries.contains(f'"decisions","{decision_id}"', autoescape=True)
    for instance in instances(connection):
        first = _first_since(connection, instance, at_us - _BEFORE_US)
        near = chain.c.seq.between(first, first + _BATCHES)
        query = select(chain).where(chain.c.instance == instance, near, named).order_by(chain.c.seq).limit(1)
        row = connection.execute(query).mappings().one_or_none()
        if row is not None:
            return _verified(connection, row)
    return None


def _verified(connection: Connection, row: RowMapping) -> Inclusion:
    found = verify_batch(connection, row)
    return Inclusion(row["instance"], row["seq"], row["created_us"], row["hash"], found)


def _first_since(connection: Connection, instance: str, at_us: int) -> int:
    """The first batch of an instance that is not older, by halving: its batches are numbered in time."""
    c = chain.c
    newest = select(c.seq).where(c.instance == instance).order_by(c.seq.desc()).limit(1)
    low, high = 1, connection.execute(newest).scalar_one() + 1
    while low < high:
        middle = (low + high) // 2
        created_us = connection.execute(
            select(c.created_us).where(c.instance == instance, c.seq == middle)
        ).scalar()
        low, high = (middle + 1, high) if created_us is not None and created_us < at_us else (low, middle)
    return low
