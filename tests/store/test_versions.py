"""Does the registry keep what a version is?"""

import pytest
from sqlalchemy import select

from app.store.chain import verify
from app.store.counters import latest_answers
from app.store.database import Database
from app.store.tables import versions
from app.store.transaction import CounterKey, transaction
from app.store.versions import is_used, register, registered
from tests.store.samples import MINUTE, NOW_US, add_rollout, validation, write


def test_of_the_rows_of_a_version_the_newest_counts_and_none_is_lost(database: Database) -> None:
    with transaction(database, "test", now_us=NOW_US) as tx:
        for word in ("first", "second"):
            register(tx, {"id": "v1", "word": word}, by="k1", now_us=NOW_US)
        register(tx, {"id": "v2", "word": "other"}, by="k1", now_us=NOW_US)
    with database.read() as connection:
        assert {name: each.document["word"] for name, each in registered(connection).items()} == {
            "v1": "second",
            "v2": "other",
        }
        assert len(connection.execute(select(versions)).all()) == 3
        assert verify(connection).ok


@pytest.mark.parametrize("by", ["rollout", "counter", "validation"])
def test_a_version_is_used_once_anything_names_it(database: Database, by: str) -> None:
    with database.read() as connection:
        assert not is_used(connection, "v1")
    if by == "rollout":
        add_rollout(database)
    elif by == "validation":
        write(database, validation())
    else:
        with transaction(database, "test", now_us=NOW_US) as tx:
            tx.count(CounterKey("write", "v1", 1, MINUTE, "decision", "allow"))
    with database.read() as connection:
        assert is_used(connection, "v1")
        assert not is_used(connection, "v2")


def test_the_latest_answers_are_those_of_the_last_epoch_with_any(database: Database) -> None:
    with transaction(database, "test", now_us=NOW_US) as tx:
        for epoch, label, n in ((1, "deny", 5), (3, "allow", 2), (3, "deny", 1)):
            tx.count(CounterKey("write", "v1", epoch, MINUTE, "model", label), n)
        tx.count(CounterKey("write", "v1", 4, MINUTE, "decision", "allow"))
        tx.count(CounterKey("write", "v2", 4, MINUTE, "model", "allow"))
    with database.read() as connection:
        assert latest_answers(connection, "write", version="v1") == {"allow": 2, "deny": 1}
        assert latest_answers(connection, "write", version="v9") == {}
