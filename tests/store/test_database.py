"""Is the store reached, migrated and owned as it must be?"""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError, OperationalError

from app.errors import Conflict, SettingsError, StoreUnavailable
from app.store.database import Database, one_server_lock
from app.store.tables import api_keys, metadata, plane
from app.store.transaction import transaction
from tests.store.samples import execute

ROOT = Path(__file__).parents[2]


def test_the_migrated_schema_is_the_one_that_the_program_describes(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        found = inspect(connection)
        for table in metadata.sorted_tables:
            keys = found.get_pk_constraint(table.name)["constrained_columns"]
            assert keys == [column.name for column in table.primary_key.columns]


def test_a_file_that_is_gone_is_away_for_the_checkpoint_too(
    sqlite_database: Database, tmp_path: Path
) -> None:
    gone = Database(f"sqlite:///{tmp_path / 'gone.db'}")
    sqlite_database.checkpoint()
    with pytest.raises(StoreUnavailable, match="unable to open"):
        gone.checkpoint()


def test_migrations_go_up_and_down_and_up_again(empty_url: str) -> None:
    database = Database(empty_url)
    database.migrate()
    database.check_schema()
    database.downgrade("base")
    with pytest.raises(StoreUnavailable, match="phasegate db migrate"):
        database.check_schema()
    with database.read() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    database.migrate()
    database.migrate()
    database.check_schema()
    database.close()


def test_a_schema_of_a_newer_program_is_not_touched(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnavailable, match="newer Phasegate"):
        database.check_schema()


def test_each_plane_has_a_secret_of_its_own(empty_url: str) -> None:
    database = Database(empty_url)
    secrets = set()
    for _ in range(2):
        database.migrate()
        with database.read() as connection:
            row = connection.execute(plane.select()).one()
        assert (row.id, row.kill_switch, len(row.actor_secret)) == (1, False, 32)
        secrets.add(row.actor_secret)
        database.downgrade("base")
    assert len(secrets) == 2
    database.close()


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises((DBAPIError, StoreUnavailable)), database.read() as connection:
        connection.execute(plane.update().values(kill_switch=True))
    with database.read() as connection:
        assert connection.execute(plane.select()).one().kill_switch is False


def test_a_reader_sees_one_snapshot(database: Database) -> None:
    with database.read() as connection:
        before = connection.execute(plane.select()).one()
        with database.write() as writer:
            writer.execute(plane.update().values(revision=77))
        assert connection.execute(plane.select()).one() == before


def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(DBAPIError):
        execute(database, plane.update().values(revision=77), plane.insert().values(id=1))
    with database.read() as connection:
        assert connection.execute(plane.select()).one().revision == 1


@pytest.mark.parametrize("url", ["", "plane.db", "sqlite://", "sqlite:///:memory:", "mysql://host/plane"])
def test_a_url_of_another_database_is_refused_by_name(url: str) -> None:
    with pytest.raises(SettingsError, match="PHASEGATE_DATABASE_URL"):
        Database(url)


def test_a_missing_file_is_unavailable_and_never_made_anew(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    with pytest.raises(StoreUnavailable, match="phasegate db migrate"), database.write():
        pass
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()


def test_a_file_that_was_moved_away_is_not_written_to(sqlite_database: Database, tmp_path: Path) -> None:
    with sqlite_database.write() as connection:
        connection.execute(plane.update().values(revision=2))
    (tmp_path / "plane.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(StoreUnavailable), sqlite_database.write() as connection:
        connection.execute(plane.update().values(revision=3))


def test_an_unreachable_server_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"postgresql://nobody@/plane?host={tmp_path}")
    with pytest.raises(StoreUnavailable) as caught, database.read():
        pass
    assert isinstance(caught.value.__cause__, OperationalError)


def test_sqlite_commits_reach_the_disk(sqlite_database: Database) -> None:
    with sqlite_database.write() as connection:
        pragmas = ("journal_mode", "synchronous", "recursive_triggers")
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
    assert found == ["wal", 2, 1]


def test_unknown_columns_of_a_row_are_refused(database: Database) -> None:
    with pytest.raises(KeyError, match="nickname"), transaction(database, "test", now_us=1) as tx:
        tx.insert(api_keys, {"id": "1", "nickname": "x"})


def test_one_server_a_data_directory(tmp_path: Path) -> None:
    with (
        one_server_lock(tmp_path),
        pytest.raises(Conflict, match=f"process {os.getpid()}"),
        one_server_lock(tmp_path),
    ):
        pass
    with one_server_lock(tmp_path):
        pass


def test_the_lock_of_a_killed_server_is_free(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from app.store.database import one_server_lock\n"
        "with one_server_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(Conflict, match=f"process {process.pid}"), one_server_lock(tmp_path):
            pass
        process.kill()
        process.wait()
    with one_server_lock(tmp_path):
        pass


def test_a_path_with_odd_characters_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a #?%41.db"
    database = Database(f"sqlite:///{quote(str(path))}")
    database.migrate()
    database.check_schema()
    assert path.exists()
    database.close()
