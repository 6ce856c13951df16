"""Is nothing lost, doubled or left standing when the database goes away?"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from app.errors import NotRecorded, StoreUnavailable
from app.store.chain import verify
from app.store.counters import totals
from app.store.database import BUSY_MS, Database
from app.store.entry import encode
from app.store.journal import Journal
from app.store.ledger import Ledger, LedgerState
from app.store.tables import plane
from tests.conftest import PostgresServer
from tests.store.samples import add_rollout, decision, guarded, id_of, ids

Switch = Callable[[], None]


@pytest.fixture(params=["moved", "locked", pytest.param("stopped", marks=pytest.mark.postgres)])
def outage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Database, Switch, Switch]]:
    """A database, how it goes away, and how it comes back."""
    if request.param == "stopped":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database: Database = request.getfixturevalue("postgres_database")
        yield database, server.stop, server.start
        server.ensure_started()
        return
    database = request.getfixturevalue("sqlite_database")
    path, away = tmp_path / "plane.db", tmp_path / "away.db"
    if request.param == "moved":
        yield database, lambda: (path.rename(away), None)[1], lambda: (away.rename(path), None)[1]
        return
    other = sqlite3.connect(path, isolation_level=None)
    yield database, lambda: (other.execute("BEGIN EXCLUSIVE"), None)[1], other.rollback
    other.close()


async def back(ledger: Ledger) -> None:
    async with asyncio.timeout(20):
        while ledger.state is LedgerState.JOURNALING:  # noqa: ASYNC110 the thread tells nobody
            await asyncio.sleep(0.01)


def assert_recorded_once(database: Database, expected: Iterable[str]) -> None:
    expected = sorted(expected)
    assert sorted(ids(database)) == expected
    with database.read() as connection:
        assert totals(connection, "write", 1, version="v1") == {("decisions", "allow"): len(expected)}
        assert verify(connection).problems == []


async def test_the_journal_takes_over_and_is_replayed_once(
    outage: tuple[Database, Switch, Switch], journal: Journal
) -> None:
    database, go_away, come_back = outage
    ledger = Ledger(database, journal, "test")
    entries = [decision() for _ in range(30)]
    assert not (await ledger.append(entries[0])).journaled
    go_away()
    receipts = await asyncio.gather(*map(ledger.append, entries[1:20]))
    receipts += [await ledger.append(entry) for entry in entries[20:25]]
    assert all(receipt.journaled for receipt in receipts)
    assert ledger.state is LedgerState.JOURNALING
    with pytest.raises(StoreUnavailable):
        await ledger.run(lambda tx: tx.connection.execute(plane.select()).one())
    come_back()
    await back(ledger)
    assert not (await ledger.append(entries[25])).journaled
    assert journal.size == 0
    ledger.close()
    assert_recorded_once(database, map(id_of, entries[:26]))


async def test_what_is_journaled_at_the_end_is_replayed_at_the_next_start(
    outage: tuple[Database, Switch, Switch], tmp_path: Path
) -> None:
    database, go_away, come_back = outage
    go_away()
    journal = Journal(tmp_path / "journal")
    ledger = Ledger(database, journal, "test")
    await ledger.append(waiting := decision())
    ledger.close()
    journal.close()
    come_back()
    journal = Journal(tmp_path / "journal")
    ledger = Ledger(database, journal, "test")
    assert not await ledger.run(lambda tx: plane_is_killed(tx.connection))
    assert_recorded_once(database, [id_of(waiting)])
    ledger.close()
    journal.close()


def plane_is_killed(connection: Connection) -> bool:
    return bool(connection.execute(plane.select()).one().kill_switch)


async def test_a_models_answer_never_goes_to_the_journal(
    outage: tuple[Database, Switch, Switch], journal: Journal
) -> None:
    database, go_away, come_back = outage
    add_rollout(database)
    ledger = Ledger(database, journal, "test")
    go_away()
    entry = guarded(revision=1)
    receipt = await ledger.append(entry)
    assert (receipt.entry, receipt.journaled) == (entry.otherwise, True)
    with pytest.raises(NotRecorded, match="cannot be checked"):
        await ledger.append(guarded()._replace(otherwise=None))
    come_back()
    await back(ledger)
    ledger.close()
    assert_recorded_once(database, [id_of(receipt.entry)])


async def test_when_neither_takes_the_record_there_is_none(
    outage: tuple[Database, Switch, Switch], tmp_path: Path
) -> None:
    database, go_away, come_back = outage
    journal = Journal(tmp_path / "closed")
    journal.close()
    ledger = Ledger(database, journal, "test")
    go_away()
    with pytest.raises(NotRecorded):
        await ledger.append(decision())
    come_back()
    ledger.close()
    assert ids(database) == []


class _LosesTheAnswer(Database):
    """Commits, and then says that the connection was lost."""

    loses = False

    @contextmanager
    def write(self, *, busy_ms: int = BUSY_MS) -> Iterator[Connection]:
        with super().write(busy_ms=busy_ms) as connection:
            yield connection
        if self.loses:
            self.loses = False
            raise StoreUnavailable("connection lost during commit")


@pytest.fixture
def forgetful(database: Database) -> Iterator[_LosesTheAnswer]:
    opened = _LosesTheAnswer(database.url)
    yield opened
    opened.close()


async def test_a_commit_whose_outcome_is_unknown_is_neither_lost_nor_doubled(
    forgetful: _LosesTheAnswer, journal: Journal
) -> None:
    ledger = Ledger(forgetful, journal, "test")
    entries = [decision() for _ in range(3)]
    await ledger.append(entries[0])
    forgetful.loses = True
    assert (await ledger.append(entries[1])).journaled
    await back(ledger)
    await ledger.append(entries[2])
    ledger.close()
    assert_recorded_once(forgetful, map(id_of, entries))


async def test_work_whose_commit_is_unknown_is_not_done_twice(
    forgetful: _LosesTheAnswer, journal: Journal
) -> None:
    ledger = Ledger(forgetful, journal, "test")
    forgetful.loses = True
    with pytest.raises(StoreUnavailable):
        await ledger.run(
            lambda tx: tx.connection.execute(update(plane).values(revision=plane.c.revision + 1))
        )
    with forgetful.read() as connection:
        assert connection.execute(plane.select()).one().revision == 2
    ledger.close()


async def test_a_replay_longer_than_one_commit_keeps_its_order(
    sqlite_database: Database, tmp_path: Path
) -> None:
    entries = [decision() for _ in range(1_200)]
    journal = Journal(tmp_path / "long")
    journal.append(map(encode, entries))
    ledger = Ledger(sqlite_database, journal, "test")
    await ledger.append(newer := decision())
    await back(ledger)
    ledger.close()
    journal.close()
    with sqlite_database.read() as connection:
        rowids = connection.exec_driver_sql("SELECT id FROM decisions ORDER BY rowid").scalars().all()
    assert rowids == [id_of(entry) for entry in (*entries, newer)]
    assert_recorded_once(sqlite_database, rowids)


async def test_a_journaled_entry_that_the_database_refuses_is_set_aside_for_a_person(
    database: Database, tmp_path: Path
) -> None:
    bad = decision(rollout=None)
    good = [decision(), decision()]
    journal = Journal(tmp_path / "journal")
    journal.append([encode(good[0]), encode(bad), b"no entry at all", encode(good[1])])
    ledger = Ledger(database, journal, "test")
    await back(ledger)
    ledger.close()
    assert_recorded_once(database, map(id_of, good))
    assert journal.size == 0
    journal.close()
    aside = Journal(tmp_path / "journal.rejected")
    assert aside.read(0, limit=9)[0] == [encode(bad), b"no entry at all"]
    aside.close()


async def test_a_schema_that_has_gone_is_an_outage_and_no_fault_of_the_entries(
    database: Database, journal: Journal
) -> None:
    ledger = Ledger(database, journal, "test")
    database.downgrade("base")
    waiting = [decision() for _ in range(3)]
    receipts = await asyncio.gather(*map(ledger.append, waiting))
    assert all(receipt.journaled for receipt in receipts)
    database.migrate()
    await back(ledger)
    ledger.close()
    assert_recorded_once(database, map(id_of, waiting))
