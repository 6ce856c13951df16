"""How does a row, a sealed text or a commit batch become a hash?"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Boolean, Float, Table

from app.store.ids import take
from app.store.tables import reasonings

GENESIS = "0" * 64
ADDED_LATER = frozenset({"counted", "claimed_us"})
_SALT_BYTES = 16

_encode = msgspec.json.Encoder().encode


class Head(NamedTuple):
    """Where an instance's chain ends."""

    seq: int
    hash: str


class ChainEntry(NamedTuple):
    """One committed row, as its batch's `entries` names it."""

    table: str
    id: str
    commitment: str


NO_HEAD = Head(0, GENESIS)


def commitment(table: Table, values: Mapping[str, Any]) -> str:
    """The hash of a row's columns but `commitment`, in column order; absent columns count as null.

    A column that was added later, behind the others, counts where it has a value: rows from before keep
    their hashes.

    The same for what is about to be written and for what is read back through `table`. A reasoning
    commits to its salt and body alone, so that it can be erased.
    """
    if table is reasonings:
        return sealed(values["salt"], values["body"])
    names, floats, flags = _columns(table)
    row = [values.get(name) for name in names]
    while row[-1] is None and names[len(row) - 1] in ADDED_LATER:
        row.pop()
    for index in floats:
        if index < len(row) and (number := row[index]) is not None:
            row[index] = number + 0.0  # a whole number or -0.0 comes back from SQL as the plain float
    for index in flags:
        if index < len(row) and (flag := row[index]) is not None:
            row[index] = bool(flag)
    return hashlib.sha256(_encode(row)).hexdigest()


def seal(body: str) -> tuple[bytes, str]:
    """A fresh salt and the commitment of `body` under it: nobody can guess an erased body from the hash."""
    salt = take(_SALT_BYTES)
    return salt, sealed(salt, body)


def sealed(salt: bytes, body: str) -> str:
    """The commitment of `body` under a known salt."""
    return hashlib.sha256(salt + body.encode("utf-8", "surrogatepass")).hexdigest()


def encode_entries(entries: Sequence[ChainEntry]) -> str:
    return _encode(entries).decode()


def decode_entries(text: str) -> list[ChainEntry]:
    """Raises `msgspec.DecodeError` where `text` is not a list of entries."""
    return [ChainEntry(*entry) for entry in msgspec.json.decode(text, type=list[tuple[str, str, str]])]


def batch_hash(instance: str, seq: int, created_us: int, entries: str, previous: str) -> str:
    """The chain's next hash: over everything that its row says."""
    return hashlib.sha256(_encode([instance, seq, created_us, entries, previous])).hexdigest()


@cache
def _columns(table: Table) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]:
    columns = [column for column in table.columns if column.name != "commitment"]
    floats = tuple(index for index, column in enumerate(columns) if isinstance(column.type, Float))
    flags = tuple(index for index, column in enumerate(columns) if isinstance(column.type, Boolean))
    return tuple(column.name for column in columns), floats, flags
