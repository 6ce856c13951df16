"""Has anybody changed, removed or slipped in what the ledger recorded?"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Column, Connection, RowMapping, Select, Table, select

from app.store.hashing import GENESIS, ChainEntry, batch_hash, commitment, decode_entries, sealed
from app.store.retention import horizons, instances
from app.store.tables import ERASABLE, RETAINED, chain, decisions, metadata, situations

CHAINED = tuple(table for table in metadata.tables.values() if "commitment" in table.columns)

_PAGE = 16  # commit batches
_KEYS = 500  # rows
_PROBLEMS = 100
_BUCKETS = 1_024

T = TypeVar("T")


@dataclass(slots=True)
class Verification:
    """`rows` are as they were committed; `erased` were erased on request, `removed` by retention.

    `problems` are sentences, at most 100 of them; `heads` the hash of each instance's newest batch: who keeps
    one elsewhere can tell later whether the end was cut off.
    """

    batches: int = 0
    rows: int = 0
    erased: int = 0
    removed: int = 0
    problems: list[str] = field(default_factory=list)
    heads: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(connection: Connection) -> Verification:
    """Walk every instance's chain and compare it with the rows that are there.

    Sees changed, missing and foreign rows, changed batches and gaps between them, in bounded memory, over
    the one snapshot of `connection`. It cannot see that the newest batches were cut off together with
    their rows: for that somebody else must keep the chain's head.
    """
    found = Verification()
    tallies = {table.name: _Tally() for table in CHAINED}
    reached = horizons(connection)
    for instance in instances(connection):
        through = reached.get(instance, 0)
        for page in _pages(_batches(connection, instance, found), _PAGE):
            _compare(connection, page, through, tallies, found)
    for table in CHAINED:
        _find_foreign(connection, table, tallies[table.name], found)
    _find_orphans(connection, found)
    return found


def verify_batch(connection: Connection, row: RowMapping) -> Verification:
    """Compare one batch, a row of `chain`, with the rows that it names and with the batches beside it."""
    found = Verification(batches=1, heads={row["instance"]: row["hash"]})
    where = f"{row['instance']}: batch {row['seq']}"
    beside = select(chain.c.seq, chain.c.previous, chain.c.hash).where(
        chain.c.instance == row["instance"], chain.c.seq.in_((row["seq"] - 1, row["seq"] + 1))
    )
    neighbours = {each.seq: each for each in connection.execute(beside)}
    before, after = neighbours.get(row["seq"] - 1), neighbours.get(row["seq"] + 1)
    if _hash(row) != row["hash"]:
        _report(found, f"{where} was changed")
    if row["previous"] != (before.hash if before else GENESIS if row["seq"] == 1 else None):
        _report(found, f"{where} does not follow from the batch before it")
    if after and after.previous != row["hash"]:
        _report(found, f"the batch after {where} does not follow from it")
    try:
        link = _Link(row["seq"], decode_entries(row["entries"]))
    except msgspec.MsgspecError:
        _report(found, f"{where} cannot be read")
        return found
    through = horizons(connection).get(row["instance"], 0)
    _compare(connection, [link], through, {table.name: _Tally() for table in CHAINED}, found)
    return found


class _Tally:
    """Are two sets of keys the same? Told without holding either: sums of their hashes, by bucket."""

    def __init__(self) -> None:
        self.sums = [0] * _BUCKETS

    def add(self, key: str) -> None:
        bucket, weight = _weighed(key)
        self.sums[bucket] += weight

    def differing(self, other: "_Tally") -> set[int]:
        """Buckets in which the two differ; none where the keys are the same, each as often."""
        pairs = zip(self.sums, other.sums, strict=True)
        return {bucket for bucket, (mine, theirs) in enumerate(pairs) if mine != theirs}


def _bucket_of(key: str) -> int:
    return _weighed(key)[0]


def _weighed(key: str) -> tuple[int, int]:
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:2]) % _BUCKETS, int.from_bytes(digest[2:])


class _Link(NamedTuple):
    seq: int
    entries: list[ChainEntry]


def _batches(connection: Connection, instance: str, found: Verification) -> Iterator[_Link]:
    """The batches of one chain in order, each checked against the one before."""
    previous, seq = GENESIS, 0
    for row in _rows(connection, chain.c.seq, select(chain).where(chain.c.instance == instance)):
        where = f"{instance}: batch {row['seq']}"
        if row["seq"] != seq + 1:
            _report(found, f"{where} follows batch {seq}: those between are missing")
        elif row["previous"] != previous:
            _report(found, f"{where} does not follow from the batch before it")
        if _hash(row) != row["hash"]:
            _report(found, f"{where} was changed")
        found.batches += 1
        previous, seq = row["hash"], row["seq"]
        found.heads[instance] = row["hash"]
        try:
            yield _Link(seq, decode_entries(row["entries"]))
        except msgspec.MsgspecError:
            _report(found, f"{where} cannot be read")


def _compare(
    connection: Connection,
    page: Sequence[_Link],
    through: int,
    tallies: Mapping[str, _Tally],
    found: Verification,
) -> None:
    expected: dict[str, dict[str, tuple[ChainEntry, bool]]] = defaultdict(dict)
    for link in page:
        for entry in link.entries:
            if entry.table not in tallies:
                _report(found, f"batch {link.seq} names an unknown table {entry.table}")
                continue
            expected[entry.table][entry.id] = (entry, link.seq <= through)
    for name, entries in expected.items():
        table = metadata.tables[name]
        for keys in _pages(entries, _KEYS):
            present = _present(connection, table, keys)
            for key in keys:
                entry, is_old = entries[key]
                if key in present:
                    tallies[name].add(key)
                    _check_row(table, entry, present[key], found)
                else:
                    _check_missing(table, key, found, is_old=is_old)
            if table is decisions:
                _check_situations(connection, present, found)


def _check_row(table: Table, entry: ChainEntry, row: RowMapping, found: Verification) -> None:
    if (
        _same(partial(commitment, table, dict(row)), entry.commitment)
        and row["commitment"] == entry.commitment
    ):
        found.rows += 1
    else:
        _report(found, f"{entry.table} {entry.id} was changed")


def _check_missing(table: Table, key: str, found: Verification, *, is_old: bool) -> None:
    if is_old and table in (*RETAINED, *ERASABLE):
        found.removed += 1
    elif table in ERASABLE:
        found.erased += 1
    else:
        _report(found, f"{table.name} {key} is missing")


def _check_situations(connection: Connection, present: Mapping[str, RowMapping], found: Verification) -> None:
    sealed_here = _present(connection, situations, list(present))
    found.erased += len(present) - len(sealed_here)
    for key, row in sealed_here.items():
        is_same = _same(partial(sealed, row["salt"], row["body"]), present[key]["situation_commitment"])
        if not is_same or row["actor_id"] != _actor(row):
            _report(found, f"situations {key} was changed")


def _find_foreign(connection: Connection, table: Table, chained: _Tally, found: Verification) -> None:
    """Report rows that no batch names."""
    key = _key(table)
    there = _Tally()
    for row in _rows(connection, key, select(key)):
        there.add(row[key.name])
    buckets = there.differing(chained)
    if not buckets:
        return
    suspects = {
        row[key.name] for row in _rows(connection, key, select(key)) if _bucket_of(row[key.name]) in buckets
    }
    foreign = suspects - set(_named(connection, table, buckets))
    for name in sorted(foreign):
        _report(found, f"{table.name} {name} is in no commit batch")
    if not foreign:
        _report(found, f"{table.name}: a row is named by two commit batches")


def _named(connection: Connection, table: Table, buckets: set[int]) -> Iterator[str]:
    for instance in instances(connection):
        for link in _batches(connection, instance, Verification()):
            for entry in link.entries:
                if entry.table == table.name and _bucket_of(entry.id) in buckets:
                    yield entry.id


def _find_orphans(connection: Connection, found: Verification) -> None:
    """Report situations without their decision, whose commitment is all that vouches for them."""
    decision = select(decisions.c.id).where(decisions.c.id == situations.c.decision_id)
    orphans = select(situations.c.decision_id).where(~decision.exists()).limit(_PROBLEMS)
    for key in connection.execute(orphans).scalars():
        _report(found, f"situations {key} has no decision")


def _present(connection: Connection, table: Table, keys: Sequence[str]) -> dict[str, RowMapping]:
    key = _key(table)
    rows = connection.execute(select(table).where(key.in_(keys))).mappings()
    return {row[key.name]: row for row in rows}


def _rows(connection: Connection, key: Column[Any], query: Select[Any]) -> Iterator[RowMapping]:
    """Every row in the order of `key`, a page at a time."""
    page = connection.execute(query.order_by(key).limit(_KEYS)).mappings().all()
    while page:
        yield from page
        after = query.where(key > page[-1][key.name])
        page = connection.execute(after.order_by(key).limit(_KEYS)).mappings().all()


def _pages(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while page := list(islice(iterator, size)):
        yield page


def _key(table: Table) -> Column[Any]:
    (key,) = table.primary_key.columns
    return key


def _hash(row: RowMapping) -> str:
    return batch_hash(row["instance"], row["seq"], row["created_us"], row["entries"], row["previous"])


class _Who(msgspec.Struct):
    actor_id: str


def _actor(row: RowMapping) -> object:
    """Who a situation's sealed body says it was."""
    try:
        return msgspec.json.decode(row["body"], type=_Who).actor_id
    except msgspec.MsgspecError:
        return None


def _same(compute: Callable[[], str], expected: str) -> bool:
    """Whether the hash is the expected one; a value that cannot even be hashed was changed."""
    try:
        return compute() == expected
    except (TypeError, ValueError):
        return False


def _report(found: Verification, problem: str) -> None:
    if len(found.problems) < _PROBLEMS:
        found.problems.append(problem)
