"""Which databases may a test have?"""

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import pytest_socket

from app.store.database import Database
from app.store.journal import Journal
from app.store.ledger import Ledger

_SWITCH = "PHASEGATE_TEST_POSTGRES"
_TEMPLATE = "migrated"
_names = itertools.count(1)


@dataclass(frozen=True)
class PostgresServer:
    """A server of our own in a directory of its own, reached by its socket there."""

    binaries: Path
    directory: Path
    user: str | None  # PostgreSQL refuses to run as root

    def start(self) -> None:
        options = f"-k {self.directory} -c listen_addresses= -c fsync=off -c max_connections=60"
        options += " -c deadlock_timeout=200ms"  # one second by default
        self.run("pg_ctl", "-D", self._data, "-w", "-l", str(self.directory / "log"), "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def ensure_started(self) -> None:
        """For what comes after a test that failed while the server was down."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.start()

    def initialise(self) -> None:
        self.run(
            "initdb", "-D", self._data, "-U", "phasegate", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"
        )

    def run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.binaries / program, *arguments],
            check=True,
            cwd=self.directory,
            stdout=subprocess.DEVNULL,  # the server would hold a pipe open for ever
            stderr=subprocess.DEVNULL,
            user=self.user,
            group=pwd.getpwnam(self.user).pw_gid if self.user else None,
        )

    def execute(self, statement: str) -> None:
        with psycopg.connect(
            f"host={self.directory} user=phasegate dbname=postgres", autocommit=True
        ) as connection:
            connection.execute(statement.encode())

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://phasegate@/{name}?host={self.directory}"

    @property
    def _data(self) -> str:
        return str(self.directory / "data")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """PostgreSQL is left out only where somebody says so, and then the summary counts it."""
    for item in items:
        if "postgres_url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.postgres)
    if os.environ.get(_SWITCH) != "off":
        return
    left_out = [item for item in items if item.get_closest_marker("postgres")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_unconfigure() -> None:
    """llama-cpp-python keeps files open to the end, whose warnings would follow the summary."""
    held = sys.modules.get("llama_cpp._utils")
    for name in ("outnull_file", "errnull_file"):
        if hasattr(held, name):
            getattr(held, name).close()


def pytest_report_header() -> str | None:
    return f"{_SWITCH}=off: no test runs on PostgreSQL" if os.environ.get(_SWITCH) == "off" else None


@pytest.fixture(autouse=True)
def only_this_machine() -> None:
    """No test reaches the network."""
    pytest_socket.socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.fail(f"no PostgreSQL: apt-get install -y postgresql-15, or leave it out with {_SWITCH}=off")
    directory = Path(tempfile.mkdtemp(prefix="phasegate-pg-", dir=_memory()))
    user = _unprivileged_user()
    if user:
        shutil.chown(directory, user)
    server = PostgresServer(binaries, directory, user)
    server.initialise()
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> str:
    """A migrated database to be copied."""
    postgres_server.execute(f"CREATE DATABASE {_TEMPLATE}")
    _migrate(postgres_server.url(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path / 'plane.db'}"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty PostgreSQL database."""
    yield from _postgres_database(postgres_server, template="template0")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest) -> str:
    """An empty database, of each kind in turn."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def sqlite_database(sqlite_url: str, migrated_sqlite: Path) -> Iterator[Database]:
    """A migrated SQLite."""
    shutil.copy(migrated_sqlite, sqlite_url.removeprefix("sqlite:///"))
    yield from _opened(sqlite_url)


@pytest.fixture
def postgres_database(postgres_server: PostgresServer, migrated_postgres: str) -> Iterator[Database]:
    """A migrated PostgreSQL."""
    for url in _postgres_database(postgres_server, template=migrated_postgres):
        yield from _opened(url)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest) -> Database:
    """A migrated database, of each kind in turn."""
    found = request.getfixturevalue(f"{request.param}_database")
    assert isinstance(found, Database)
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal")
    yield opened
    opened.close()


@pytest.fixture
def ledger(database: Database, journal: Journal) -> Iterator[Ledger]:
    opened = Ledger(database, journal, "test")
    yield opened
    opened.close()


def _postgres_binaries() -> Path | None:
    on_path = shutil.which("postgres")
    places = [Path("/usr/lib/postgresql/15/bin"), *([Path(on_path).resolve().parent] if on_path else [])]
    return next((place for place in places if (place / "pg_ctl").exists()), None)


def _memory() -> Path | None:
    """A file system in memory where there is room: a database is copied for every test."""
    place = Path("/dev/shm")
    return place if place.is_dir() and shutil.disk_usage(place).free > 2**30 else None


def _unprivileged_user() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _postgres_database(server: PostgresServer, *, template: str) -> Iterator[str]:
    name = f"plane_{next(_names)}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield server.url(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _migrate(url: str) -> None:
    for database in _opened(url):
        database.migrate()


def _opened(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()
