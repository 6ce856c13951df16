"""What may the hot path ask the ledger to write, and how does it look in the journal?"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Table

from app.store.tables import metadata
from app.store.transaction import CounterKey

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
