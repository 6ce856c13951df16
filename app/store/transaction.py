"""How do rows, counts and their link in the chain go into one commit?"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, select

from app.store.database import Database
from app.store.hashing import (
    NO_HEAD,
    ChainEntry,
    Head,
    batch_hash,
    commitment,
    encode_entries,
    seal,
)
from app.store.tables import REPLACED, chain, evidence_counters, evidence_totals

__all__ = ["CounterKey", "Transaction", "commitment", "seal", "transaction"]


class CounterKey(NamedTuple):
    """What is counted; `minute` is whole minutes since the epoch."""

    rollout: str
    version: str
    epoch: int
    minute: int
    metric: str
    label: str


class Transaction:
    """One open transaction of one instance. Reads and other writes go through `connection`."""

    def __init__(self, connection: Connection, instance: str, head: Head | None = None) -> None:
        self.connection = connection
        self._instance = instance
        self._head = head
        self._entries: list[ChainEntry] = []
        self._counts: dict[CounterKey, int] = {}

    def insert(self, table: Table, values: Mapping[str, Any]) -> None:
        """Write one row; absent columns are null, `commitment` is computed here."""
        self.insert_many(table, (values,))

    def insert_many(self, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows at once. Raises `KeyError` for a column that the table does not have."""
        writer = _writer(table, self.connection.dialect.name)
        parameters = [self._parameters(writer, values) for values in rows]
        if parameters:
            self.connection.exec_driver_sql(writer.sql, parameters)

    def count(self, key: CounterKey, n: int = 1) -> None:
        """Add to a counter and to its total; one upsert a key is written when the transaction finishes."""
        self._counts[key] = self._counts.get(key, 0) + n

    def add_counts(self, counts: Iterable[tuple[str, CounterKey, int]]) -> None:
        """Add to counters of any instance at once, but not to totals: `count` is for what is new."""
        self.add(evidence_counters, ((instance, *key, n) for instance, key, n in counts))

    def add(self, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add to `n`, the last of each row, where the others are a table's key; new keys begin at it."""
        # In one order everywhere: two transactions that meet on the same keys cannot deadlock.
        in_order = sorted(rows)
        if in_order:
            self.connection.exec_driver_sql(_upsert(table, self.connection.dialect.name), in_order)

    def finish(self, now_us: int) -> Head:
        """Write what was counted and the chain's next row; returns the chain's new head."""
        self.add_counts((self._instance, key, n) for key, n in self._counts.items())
        self._add_totals()
        head = self._head or read_head(self.connection, self._instance)
        if not self._entries:
            return head
        entries = encode_entries(self._entries)
        seq = head.seq + 1
        link = batch_hash(self._instance, seq, now_us, entries, head.hash)
        row = {
            "instance": self._instance,
            "seq": seq,
            "created_us": now_us,
            "entries": entries,
            "previous": head.hash,
            "hash": link,
        }
        self.insert(chain, row)
        return Head(seq, link)

    def _add_totals(self) -> None:
        sums: dict[tuple[Any, ...], int] = {}
        for (rollout, version, epoch, _, metric, label), n in self._counts.items():
            key = (rollout, version, epoch, metric, label, self._instance)
            sums[key] = sums.get(key, 0) + n
        self.add(evidence_totals, ((*key, n) for key, n in sums.items()))

    def _parameters(self, writer: "_Writer", values: Mapping[str, Any]) -> tuple[Any, ...]:
        if not values.keys() <= writer.known:
            raise KeyError(f"{writer.table.name} has no column {sorted(values.keys() - writer.known)}")
        row = tuple(map(values.get, writer.columns))
        if not writer.is_chained:
            return row
        hashed = commitment(writer.table, values)
        self._entries.append(ChainEntry(writer.name, values[writer.key], hashed))
        return (*row, hashed)


@contextmanager
def transaction(database: Database, instance: str, *, now_us: int) -> Iterator[Transaction]:
    """A transaction on the caller's own thread, for commands and tests; a server's go through its ledger."""
    with database.write() as connection:
        work = Transaction(connection, instance)
        yield work
        work.finish(now_us)


def read_head(connection: Connection, instance: str) -> Head:
    """Where the chain of `instance` ends in this database."""
    newest = select(chain.c.seq, chain.c.hash).where(chain.c.instance == instance)
    row = connection.execute(newest.order_by(chain.c.seq.desc()).limit(1)).first()
    return Head(row.seq, row.hash) if row else NO_HEAD


class _Writer(NamedTuple):
    """A table's prepared INSERT. `columns` are in its order, `commitment` last and apart."""

    table: Table
    name: str
    sql: str
    columns: tuple[str, ...]
    known: frozenset[str]
    key: str
    is_chained: bool


@cache
def _writer(table: Table, dialect: str) -> _Writer:
    known = frozenset(column.name for column in table.columns)
    columns = tuple(column.name for column in table.columns if column.name != "commitment")
    is_chained = "commitment" in known
    written = (*columns, "commitment") if is_chained else columns
    sql = _insert(table.name, written, dialect)
    key = [column.name for column in table.primary_key.columns]
    if table in REPLACED:
        updates = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
        sql += f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {updates}"
    return _Writer(table, str(table.name), sql, columns, known, key[0], is_chained)


@cache
def _upsert(table: Table, dialect: str) -> str:
    """Add `n`, the last column, to the row that the others name."""
    key = [column.name for column in table.primary_key.columns]
    insert = _insert(table.name, (*key, "n"), dialect)
    return f"{insert} ON CONFLICT ({', '.join(key)}) DO UPDATE SET n = {table.name}.n + excluded.n"


def _insert(table: str, columns: Sequence[str], dialect: str) -> str:
    marks = ", ".join(["?" if dialect == "sqlite" else "%s"] * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 names from tables.py
