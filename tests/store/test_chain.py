"""Does verification see whatever was done to the ledger behind its back?"""

import json
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Table, delete, insert, text, update

from app.store.chain import Verification, verify
from app.store.database import Database
from app.store.hashing import commitment
from app.store.ids import new_id
from app.store.retention import remove_old
from app.store.tables import (
    advisories,
    chain,
    decisions,
    metadata,
    reasonings,
    retentions,
    situations,
    transitions,
)
from app.store.transaction import transaction
from tests.store.samples import NOW_US, advisory, decision, reasoning, transition, verdict, write

FIRST, SECOND = "0190-first", "0190-second"


@pytest.fixture
def ledgered(database: Database) -> Database:
    """Three batches of two instances."""
    write(database, decision(FIRST), advisory(FIRST), reasoning(FIRST))
    write(database, decision(SECOND), transition(), verdict(), now_us=NOW_US + 1)
    write(database, decision(), decision(), instance="other")
    return database


def checked(database: Database) -> Verification:
    with database.read() as connection:
        return verify(connection)


def tamper(database: Database, act: Callable[[Connection], object]) -> Verification:
    """What verification finds after somebody with full rights has done something."""
    with database.write() as connection:
        _drop_triggers(connection)
        act(connection)
    return checked(database)


def _drop_triggers(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        for table in metadata.tables:
            connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        return
    for name in (
        connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
    ):
        connection.execute(text(f"DROP TRIGGER {name}"))


def test_what_was_written_verifies(ledgered: Database) -> None:
    found = checked(ledgered)
    assert (found.ok, found.batches, found.rows, found.erased, found.removed) == (True, 3, 8, 0, 0)


def test_an_empty_ledger_verifies(database: Database) -> None:
    assert checked(database) == Verification()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (decisions.c.decision, "deny"),
        (decisions.c.exposed, False),
        (decisions.c.latency_ms, 0.3),
        (decisions.c.legacy_rule, "another"),
        (decisions.c.situation_commitment, "0" * 64),
        (decisions.c.commitment, "0" * 64),
    ],
    ids=str,
)
def test_a_changed_decision_is_found(ledgered: Database, column: object, value: object) -> None:
    change = update(decisions).where(decisions.c.id == FIRST).values({column: value})
    found = tamper(ledgered, lambda connection: connection.execute(change))
    assert f"decisions {FIRST} was changed" in found.problems


def test_a_changed_decision_with_a_fitting_commitment_is_found(ledgered: Database) -> None:
    def act(connection: Connection) -> None:
        row = connection.execute(decisions.select().where(decisions.c.id == FIRST)).mappings().one()
        forged = {**row, "decision": "deny"}
        forged["commitment"] = commitment(decisions, forged)
        connection.execute(update(decisions).where(decisions.c.id == FIRST).values(forged))

    assert tamper(ledgered, act).problems == [f"decisions {FIRST} was changed"]


@pytest.mark.parametrize(
    "change",
    [
        update(situations).where(situations.c.decision_id == FIRST).values(body='{"actor_id":"alice"}'),
        update(situations).where(situations.c.decision_id == FIRST).values(salt=b"another"),
        update(situations).where(situations.c.decision_id == FIRST).values(actor_id="mallory"),
        update(reasonings).where(reasonings.c.decision_id == FIRST).values(body="{}"),
    ],
    ids=["body", "salt", "actor", "reasoning"],
)
def test_changed_words_are_found(ledgered: Database, change: object) -> None:
    found = tamper(ledgered, lambda connection: connection.execute(change))  # type: ignore[call-overload]
    assert [problem.split()[1:] for problem in found.problems] == [[FIRST, "was", "changed"]]


@pytest.mark.parametrize("table", [advisories, transitions], ids=str)
def test_a_deleted_row_is_found(ledgered: Database, table: Table) -> None:
    (problem,) = tamper(ledgered, lambda connection: connection.execute(delete(table))).problems
    assert problem.startswith(table.name)
    assert problem.endswith("is missing")


@pytest.mark.parametrize("table", [decisions, transitions, retentions], ids=str)
def test_a_row_that_was_slipped_in_is_found(ledgered: Database, table: Table) -> None:
    rows = {
        decisions: dict(decision("forged").rows[0][1]),
        transitions: {**transition().rows[0][1], "id": "forged"},
        retentions: {"id": "forged", "created_us": 1, "instance": "test", "through_seq": 9, "removed": 9},
    }
    row = {**rows[table], "commitment": commitment(table, rows[table])}
    found = tamper(ledgered, lambda connection: connection.execute(insert(table), row))
    assert found.problems == [f"{table.name} forged is in no commit batch"]


def test_a_situation_without_its_decision_is_found(ledgered: Database) -> None:
    orphan = dict(decision("nobody's").rows[1][1])
    found = tamper(ledgered, lambda connection: connection.execute(insert(situations), orphan))
    assert found.problems == ["situations nobody's has no decision"]


def test_a_batch_cut_out_of_the_middle_is_found(ledgered: Database) -> None:
    cut = delete(chain).where(chain.c.instance == "test", chain.c.seq == 1)
    found = tamper(ledgered, lambda connection: connection.execute(cut))
    assert "test: batch 2 follows batch 0: those between are missing" in found.problems
    assert f"decisions {FIRST} is in no commit batch" in found.problems


@pytest.mark.parametrize("column", [chain.c.entries, chain.c.created_us, chain.c.hash], ids=str)
def test_a_changed_batch_is_found(ledgered: Database, column: object) -> None:
    value = {"entries": "[]", "created_us": 5, "hash": "0" * 64}[str(column).removeprefix("chain.")]
    first = update(chain).where(chain.c.instance == "test", chain.c.seq == 1).values({column: value})
    found = tamper(ledgered, lambda connection: connection.execute(first))
    assert "test: batch 1 was changed" in found.problems


def test_a_rewritten_batch_does_not_fit_the_next(ledgered: Database) -> None:
    second = update(chain).where(chain.c.instance == "test", chain.c.seq == 2).values(previous="0" * 64)
    found = tamper(ledgered, lambda connection: connection.execute(second))
    assert "test: batch 2 does not follow from the batch before it" in found.problems


def test_an_unreadable_batch_is_a_problem_and_no_crash(ledgered: Database) -> None:
    garbage = update(chain).where(chain.c.instance == "other").values(entries="not json")
    found = tamper(ledgered, lambda connection: connection.execute(garbage))
    assert {"other: batch 1 was changed", "other: batch 1 cannot be read"} <= set(found.problems)


def test_erased_words_leave_the_chain_whole(ledgered: Database) -> None:
    with ledgered.write() as connection:
        connection.execute(delete(situations).where(situations.c.actor_id == "alice"))
        connection.execute(delete(reasonings))
    found = checked(ledgered)
    assert (found.ok, found.erased) == (True, 5)


def test_problems_are_reported_up_to_a_bound(database: Database) -> None:
    write(database, *(decision() for _ in range(700)))
    found = tamper(
        database, lambda connection: connection.execute(update(decisions).values(phase="enforced"))
    )
    assert len(found.problems) == 100
    assert found.rows == 0


def test_a_batch_names_every_row_that_must_not_change(ledgered: Database) -> None:
    with ledgered.read() as connection:
        batches = connection.execute(chain.select().where(chain.c.instance == "test")).all()
    named = [entry[0] for batch in batches for entry in json.loads(batch.entries)]
    assert named == ["decisions", "advisories", "reasonings", "decisions", "transitions", "verdicts"]


class TestRetention:
    def removed(self, database: Database, *, older_than_us: int) -> tuple[int, int]:
        with transaction(database, "janitor", now_us=NOW_US + 100) as tx:
            return remove_old(tx, older_than_us=older_than_us, now_us=NOW_US + 100)

    def test_old_batches_go_and_the_chain_still_verifies(self, ledgered: Database) -> None:
        assert self.removed(ledgered, older_than_us=NOW_US + 1) == (2, 8)
        assert self.removed(ledgered, older_than_us=NOW_US + 1) == (0, 0)
        found = checked(ledgered)
        assert (found.problems, found.removed) == ([], 5)

    def test_verdicts_and_transitions_stay(self, ledgered: Database) -> None:
        self.removed(ledgered, older_than_us=NOW_US + 50)
        with ledgered.read() as connection:
            assert connection.execute(transitions.select()).all()
            assert not connection.execute(decisions.select()).all()
            assert not connection.execute(situations.select()).all()

    def test_it_works_in_bounded_steps(self, database: Database) -> None:
        for _ in range(120):
            write(database, decision())
        steps = [self.removed(database, older_than_us=NOW_US + 1) for _ in range(3)]
        assert steps == [(100, 200), (20, 40), (0, 0)]
        assert checked(database).ok

    def test_a_younger_row_that_is_missing_is_still_found(self, ledgered: Database) -> None:
        self.removed(ledgered, older_than_us=NOW_US + 1)
        found = tamper(ledgered, lambda connection: connection.execute(delete(decisions)))
        assert f"decisions {SECOND} is missing" in found.problems

    def test_a_horizon_moved_by_hand_is_found(self, ledgered: Database) -> None:
        self.removed(ledgered, older_than_us=NOW_US + 1)

        def act(connection: Connection) -> None:
            connection.execute(update(retentions).values(through_seq=99))
            connection.execute(delete(decisions))

        assert any(problem.startswith("retentions") for problem in tamper(ledgered, act).problems)

    def test_the_gate_is_closed_behind_it(self, ledgered: Database) -> None:
        self.removed(ledgered, older_than_us=NOW_US + 1)
        with ledgered.read() as connection:
            assert connection.execute(text("SELECT is_open FROM retention_gate")).scalar_one() in (0, False)


def test_a_row_hashes_the_same_before_and_after_the_database(database: Database) -> None:
    write(database, decision(new_id(), latency_ms=-0.0, legacy_latency_ms=1e300, request_id=""))
    assert checked(database).ok
