"""Is every answer recorded, in order, once, and none at the cost of another?"""

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import select, update

from app.errors import NotRecorded
from app.store.chain import verify
from app.store.counters import totals
from app.store.database import Database
from app.store.entry import Entry
from app.store.hashing import sealed
from app.store.journal import Journal
from app.store.ledger import Ledger, LedgerState, Receipt
from app.store.tables import decisions, guardrail_streams, plane, rollouts, situations, transitions
from app.store.transaction import Transaction
from tests.store.samples import add_rollout, decision, execute, guarded, id_of, ids, transition


async def together(ledger: Ledger, entries: Iterable[Entry]) -> list[Any]:
    """Append so that all wait while the thread is busy: they become one batch."""
    free = threading.Event()
    busy = ledger.run(lambda _: free.wait(10))
    waiting = [ledger.append(entry) for entry in entries]
    free.set()
    await busy
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_an_acknowledged_decision_is_committed_with_its_situation(
    ledger: Ledger, database: Database
) -> None:
    entry = decision(actor="жук")
    assert await ledger.append(entry) == Receipt(entry, journaled=False)
    with database.read() as connection:
        row = connection.execute(select(decisions)).mappings().one()
        situation = connection.execute(select(situations)).mappings().one()
    expected = entry.rows[0][1]
    assert {name: row[name] for name in expected} == expected
    assert dict(situation) == entry.rows[1][1]
    assert sealed(situation["salt"], situation["body"]) == row["situation_commitment"]


async def test_what_waits_is_one_commit(ledger: Ledger, database: Database) -> None:
    entries = [decision() for _ in range(50)]
    assert await together(ledger, entries) == [Receipt(entry, journaled=False) for entry in entries]
    with database.read() as connection:
        found = verify(connection)
        assert totals(connection, "write", 1, version="v1") == {("decisions", "allow"): 50}
    assert (found.problems, found.batches, found.rows) == ([], 1, 50)


async def test_a_bad_entry_costs_no_other_its_record(ledger: Ledger, database: Database) -> None:
    entries = [decision() for _ in range(20)]
    entries[7] = decision(id_of(entries[3]))
    entries[11] = decision(rollout=None)
    entries[13] = decision(nickname="not a column")
    entries[17] = decision(rollout="\ud800")
    outcomes = await together(ledger, entries)
    bad = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, NotRecorded)]
    assert bad == [7, 11, 13, 17]
    assert sorted(ids(database)) == sorted(
        id_of(entry) for index, entry in enumerate(entries) if index not in bad
    )
    with database.read() as connection:
        assert totals(connection, "write", 1, version="v1") == {("decisions", "allow"): 16}
        assert verify(connection).ok
    assert ledger.state is LedgerState.OK


async def test_a_cancelled_waiter_is_recorded_all_the_same(ledger: Ledger, database: Database) -> None:
    waiting = ledger.append(gone := decision())
    waiting.cancel()
    await ledger.append(stays := decision())
    assert set(ids(database)) == {id_of(gone), id_of(stays)}


async def test_closing_finishes_what_waits(database: Database, journal: Journal) -> None:
    ledger = Ledger(database, journal, "closing")
    waiting = [ledger.append(decision()) for _ in range(1_000)]
    ledger.close()
    assert len(ids(database)) == 1_000
    assert len(await asyncio.gather(*waiting)) == 1_000
    with pytest.raises(NotRecorded, match="closed"):
        ledger.append(decision())
    ledger.close()


async def test_two_event_loops_are_served(ledger: Ledger, database: Database) -> None:
    async def append() -> Receipt:
        return await ledger.append(decision())

    receipts = await asyncio.gather(append(), asyncio.to_thread(asyncio.run, append()))
    assert {id_of(receipt.entry) for receipt in receipts} == set(ids(database))


class TestGuards:
    @pytest.fixture(autouse=True)
    def _rollout(self, database: Database) -> None:
        add_rollout(database)

    async def test_a_models_answer_stands_while_its_revision_does(self, ledger: Ledger) -> None:
        entry = guarded(revision=1)
        assert await ledger.append(entry) == Receipt(entry, journaled=False)

    async def test_a_moved_revision_writes_what_stands_in(self, ledger: Ledger, database: Database) -> None:
        execute(database, update(rollouts).values(revision=2))
        entry = guarded(revision=1)
        assert (await ledger.append(entry)).entry == entry.otherwise
        assert entry.otherwise
        assert ids(database) == [id_of(entry.otherwise)]

    async def test_an_engaged_kill_switch_writes_what_stands_in(
        self, ledger: Ledger, database: Database
    ) -> None:
        execute(database, update(plane).values(kill_switch=True))
        entry = guarded(revision=1)
        assert (await ledger.append(entry)).entry == entry.otherwise

    async def test_a_rollout_that_is_not_there_guards_nothing(
        self, ledger: Ledger, database: Database
    ) -> None:
        execute(database, rollouts.delete())
        entry = guarded(revision=1)
        assert (await ledger.append(entry)).entry == entry.otherwise

    async def test_without_anything_standing_in_nothing_is_written(
        self, ledger: Ledger, database: Database
    ) -> None:
        entry = guarded(revision=9)._replace(otherwise=None)
        with pytest.raises(NotRecorded, match="guard"):
            await ledger.append(entry)
        assert ids(database) == []

    async def test_in_one_batch_each_guard_is_judged_by_itself(self, ledger: Ledger) -> None:
        entries = [guarded(revision=1), guarded(revision=2), decision(), guarded(revision=1)]
        outcomes = await together(ledger, entries)
        assert [outcome.entry for outcome in outcomes] == [entries[0], entries[1].otherwise, *entries[2:]]

    async def test_a_change_that_was_asked_for_first_counts(self, ledger: Ledger) -> None:
        def move(tx: Transaction) -> None:
            tx.connection.execute(update(rollouts).values(revision=2))

        before, moved, after = ledger.append(guarded()), ledger.run(move), ledger.append(guarded())
        await moved
        assert (await before).entry.guard is not None
        assert (await after).entry.guard is None


@pytest.mark.postgres
async def test_no_models_answer_is_committed_after_another_instance_moved_the_rollout(
    postgres_database: Database, journal: Journal
) -> None:
    add_rollout(postgres_database)
    ledger = Ledger(postgres_database, journal, "beside")
    with postgres_database.write() as connection:
        connection.execute(update(rollouts).values(revision=2))
        waiting = ledger.append(guarded(revision=1))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done  # it waits for the other's commit
    assert (await waiting).entry.guard is None
    ledger.close()


class TestWork:
    async def test_it_is_committed_and_chained_with_what_it_returns(
        self, ledger: Ledger, database: Database
    ) -> None:
        (table, row), *_ = transition().rows

        def work(tx: Transaction) -> str:
            tx.insert(table, row)
            return "done"

        assert await ledger.run(work) == "done"
        with database.read() as connection:
            assert connection.execute(select(transitions.c.id)).scalar_one() == row["id"]
            assert verify(connection).rows == 1

    async def test_what_raises_leaves_nothing_and_raises_to_its_waiter(
        self, ledger: Ledger, database: Database
    ) -> None:
        def work(tx: Transaction) -> None:
            tx.insert(*decision().rows[0])
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await ledger.run(work)
        await ledger.append(after := decision())
        assert ids(database) == [id_of(after)]
        with database.read() as connection:
            assert verify(connection).ok

    async def test_it_runs_in_the_order_in_which_it_was_asked_for(self, ledger: Ledger) -> None:
        def seen(tx: Transaction) -> int:
            return len(tx.connection.execute(select(decisions.c.id)).all())

        counted = []
        for _ in range(10):
            ledger.append(decision())
            counted.append(ledger.run(seen))
        assert await asyncio.gather(*counted) == list(range(1, 11))

    @pytest.mark.postgres
    async def test_a_deadlocks_victim_is_tried_again(
        self, postgres_database: Database, journal: Journal
    ) -> None:
        add_rollout(postgres_database, "a")
        add_rollout(postgres_database, "b")
        ledgers = [Ledger(postgres_database, journal, name) for name in ("one", "two")]
        meet = threading.Barrier(2)

        def crossing(first: str, second: str) -> Any:
            attempts: list[int] = []

            def work(tx: Transaction) -> None:
                attempts.append(1)
                for name in (first, second):
                    tx.connection.execute(
                        update(rollouts)
                        .where(rollouts.c.name == name)
                        .values(revision=rollouts.c.revision + 1)
                    )
                    if name == first and len(attempts) == 1:
                        meet.wait(10)

            return work

        await asyncio.gather(ledgers[0].run(crossing("a", "b")), ledgers[1].run(crossing("b", "a")))
        with postgres_database.read() as connection:
            assert set(connection.execute(select(rollouts.c.revision)).scalars()) == {3}
        for ledger in ledgers:
            ledger.close()


async def test_a_newer_stream_takes_the_place_of_the_older(ledger: Ledger, database: Database) -> None:
    stream = {"rollout": "write", "guardrail": "errors", "epoch": 1, "state": "{}", "assessment": "{}"}
    for updated_us in (1, 2):
        row = {**stream, "updated_us": updated_us}
        entry = decision()
        await ledger.append(entry._replace(rows=(*entry.rows, (guardrail_streams, row))))
    with database.read() as connection:
        assert connection.execute(select(guardrail_streams.c.updated_us)).scalars().all() == [2]
