"""Does the database itself keep history as it was written?"""

import pytest
from sqlalchemy import Table, delete, text, update
from sqlalchemy.exc import IntegrityError

from app.store.database import Database
from app.store.ids import new_id
from app.store.retention import remove_old
from app.store.tables import (
    APPEND_ONLY,
    ERASABLE,
    RETAINED,
    advisories,
    candidate_advisories,
    chain,
    decisions,
    reasonings,
    retention_gate,
    retentions,
    situations,
    transitions,
    validations,
    verdicts,
    versions,
)
from app.store.transaction import transaction
from tests.store.samples import (
    NOW_US,
    advisory,
    candidate_advisory,
    decision,
    execute,
    reasoning,
    transition,
    validation,
    verdict,
    version,
    write,
)

EVERY = pytest.mark.parametrize("table", [*APPEND_ONLY, *ERASABLE], ids=str)


@pytest.fixture
def filled(database: Database) -> Database:
    """A row in every table that keeps history."""
    found = decision(old := new_id())
    write(database, found, advisory(old), candidate_advisory(old), reasoning(old), now_us=NOW_US - 10)
    with transaction(database, "test", now_us=NOW_US) as tx:
        assert remove_old(tx, older_than_us=NOW_US, now_us=NOW_US).batches == 1
    decided = new_id()
    write(database, decision(decided), advisory(decided), reasoning(decided))
    write(database, candidate_advisory(decided), verdict(), version(), transition(), validation())
    return database


@EVERY
def test_history_cannot_be_updated(filled: Database, table: Table) -> None:
    key = next(iter(table.primary_key.columns))
    with pytest.raises(IntegrityError, match="append-only"):
        execute(filled, update(table).values({key: key}))


@pytest.mark.parametrize("table", APPEND_ONLY, ids=str)
def test_history_cannot_be_deleted(filled: Database, table: Table) -> None:
    with pytest.raises(IntegrityError, match="append-only"):
        execute(filled, delete(table))


@pytest.mark.parametrize("table", [verdicts, transitions, validations, retentions, chain], ids=str)
def test_the_retention_gate_opens_no_table_that_retention_keeps(filled: Database, table: Table) -> None:
    with pytest.raises(IntegrityError, match="append-only"):
        execute(filled, retention_gate.update().values(is_open=True), delete(table))


@pytest.mark.parametrize("table", RETAINED, ids=str)
def test_without_its_gate_row_nothing_is_deleted(filled: Database, table: Table) -> None:
    with pytest.raises(IntegrityError, match="append-only"):
        execute(filled, delete(retention_gate), delete(table))


@pytest.mark.parametrize("table", ERASABLE, ids=str)
def test_words_can_be_erased(filled: Database, table: Table) -> None:
    with filled.write() as connection:
        assert connection.execute(delete(table)).rowcount == 1


@pytest.mark.postgres
@pytest.mark.parametrize("table", APPEND_ONLY, ids=str)
def test_history_cannot_be_truncated(postgres_database: Database, table: Table) -> None:
    with pytest.raises(IntegrityError, match="append-only"):
        execute(postgres_database, text(f"TRUNCATE {table.name}"))


def test_a_replacing_insert_is_a_refused_delete(sqlite_database: Database) -> None:
    write(sqlite_database, found := decision())
    forged = {**found.rows[0][1], "commitment": ""}
    with pytest.raises(IntegrityError, match="append-only"):
        execute(sqlite_database, decisions.insert().prefix_with("OR REPLACE").values(forged))


def test_every_table_with_words_or_history_is_covered() -> None:
    of_decisions = {decisions, advisories, candidate_advisories, verdicts}
    assert of_decisions | {versions, transitions, validations, retentions, chain} == set(APPEND_ONLY)
    assert {situations, reasonings} == set(ERASABLE)
