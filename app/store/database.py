"""How does the plane reach its database?"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, func, make_url, select
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    InterfaceError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import Conflict, SettingsError, StoreUnavailable
from app.store import schema
from app.store.line_watch import LineWatch

BUSY_MS = 2_000  # how long a writer waits for another before the database counts as away
_PROBE_BUSY_MS = 50
_SETTING = "PHASEGATE_DATABASE_URL"
# A PostgreSQL that takes longer counts as away, whatever its sockets say: everybody waits for the writer.
_PING_S, _WRITE_S, _READ_S = 3.0, 6.0, 10.0
# A network that swallows everything is noticed within about 10 s.
_NETWORK = {
    "connect_timeout": 2,
    "tcp_user_timeout": 5_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}


class Database:
    """One SQLite file or one PostgreSQL: many readers, and writers that take their lock at once.

    Nothing connects before the first use. Whatever says that the database cannot be reached, is
    locked for too long or cannot write is raised as `StoreUnavailable`, with its cause.
    """

    def __init__(self, url: str) -> None:
        self._url = _checked(url)
        self._path = Path(self._url.database or "") if self._url.get_backend_name() == "sqlite" else None
        self._reader = self._sqlite(read_only=True) if self._path else self._postgresql(read_only=True)
        self._writer = self._sqlite(read_only=False) if self._path else self._postgresql(read_only=False)
        self._inode: int | None = None
        self._watch = LineWatch()

    @property
    def url(self) -> str:
        """With its password: for this process's own use, never for logs."""
        return self._url.render_as_string(hide_password=False)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._url.get_backend_name()

    @contextmanager
    def read(self, *, at_most_s: float = _READ_S) -> Iterator[Connection]:
        """One consistent snapshot; writes through it are refused."""
        with (
            _availability(),
            self._connected(self._reader) as connection,
            self._watched(connection, at_most_s),
        ):
            yield connection

    @contextmanager
    def write(self, *, busy_ms: int = BUSY_MS) -> Iterator[Connection]:
        """A transaction, committed at the end and rolled back where the block raises."""
        with _availability(), self._connected(self._writer) as connection:
            connection.execution_options(busy_ms=busy_ms)
            with self._watched(connection, _WRITE_S):
                yield connection
                connection.commit()

    @contextmanager
    def probe(self) -> Iterator[Connection]:
        """`write` that waits for nobody: is the database back?"""
        with self.write(busy_ms=_PROBE_BUSY_MS) as connection:
            yield connection

    def migrate(self) -> None:
        """Bring the schema to this program's; creates the SQLite file where there is none."""
        with _availability():
            schema.upgrade(self._creating())

    def downgrade(self, revision: str) -> None:
        """Take the schema back to a revision; `base` drops everything."""
        with _availability():
            schema.downgrade(self._creating(), revision)

    def checkpoint(self) -> None:
        """Move what SQLite's write-ahead log holds into its file, beside the writer and not in its way.

        Left to the writer, every thousand pages a commit waits for it. Nothing to do on PostgreSQL.
        """
        if self._path is None:
            return
        with _availability(), closing(self._open_sqlite("rw")) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def size_bytes(self) -> int:
        """SQLite's file with its write-ahead log, or what PostgreSQL says of itself."""
        if self._path is not None:
            self._check_file()
            files = (self._path, self._path.with_name(f"{self._path.name}-wal"))
            return sum(file.stat().st_size for file in files if file.exists())
        with self.read() as connection:
            return int(connection.scalar(select(func.pg_database_size(func.current_database()))) or 0)

    def check_schema(self) -> None:
        """Raises `StoreUnavailable` with the mending step where the schema is not this program's."""
        with self.read() as connection:
            schema.check(connection)

    def close(self) -> None:
        self._reader.dispose()
        self._writer.dispose()
        self._watch.close()

    @contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        self._check_file()
        with engine.connect() as connection:
            yield connection

    def _watched(self, connection: Connection, at_most_s: float) -> AbstractContextManager[None]:
        if self._path is not None:
            return nullcontext()
        line: Any = connection.connection.dbapi_connection
        return self._watch.over(line.fileno(), at_most_s=at_most_s)

    def _check_file(self) -> None:
        """SQLite goes on writing into a file that was moved or removed, and that would be lost."""
        if self._path is None:
            return
        try:
            inode = self._path.stat().st_ino
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: {error.strerror}; run `phasegate db migrate`") from error
        if inode != self._inode:
            self.close()
            self._inode = inode

    def _sqlite(self, *, read_only: bool) -> Engine:
        engine = create_engine(
            "sqlite+pysqlite://",
            creator=lambda: self._open_sqlite("rw"),
            poolclass=QueuePool,
            pool_size=5,
            max_overflow=35,
            pool_timeout=5.0,
        )
        pragmas = _READER_PRAGMAS if read_only else _WRITER_PRAGMAS
        event.listen(engine, "connect", lambda connection, _record: _run(connection, pragmas))
        event.listen(engine, "begin", _begin_deferred if read_only else _begin_immediate)
        return engine

    def _open_sqlite(self, mode: str) -> sqlite3.Connection:
        # Mode rw: a file that has gone must not come back empty.
        return sqlite3.connect(
            f"file:{quote(str(self._path))}?mode={mode}",
            uri=True,
            timeout=BUSY_MS / 1_000,
            isolation_level=None,  # BEGIN is ours
            check_same_thread=False,
        )

    def _postgresql(self, *, read_only: bool) -> Engine:
        options = "" if read_only else f"-c lock_timeout={BUSY_MS}"
        engine = create_engine(
            self._url,
            connect_args={**_NETWORK, "options": options},
            isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
            execution_options={"postgresql_readonly": read_only},
            pool_size=5,
            max_overflow=35,
            pool_timeout=5.0,
        )
        if read_only:  # the ledger tries again by itself
            event.listen(engine, "checkout", self._ping)
        return engine

    def _ping(self, line: Any, _record: object, _proxy: object) -> None:
        """As SQLAlchemy's own, which would wait for ever for a frozen server."""
        try:
            with self._watch.over(line.fileno(), at_most_s=_PING_S):
                self._reader.dialect.do_ping(line)
        except self._reader.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error

    def _creating(self) -> Engine:
        if self._path is None:
            return create_engine(self._url, connect_args=_NETWORK)
        engine = create_engine("sqlite+pysqlite://", creator=lambda: self._open_sqlite("rwc"))
        event.listen(engine, "connect", lambda connection, _record: _run(connection, _WRITER_PRAGMAS))
        event.listen(engine, "begin", _begin_immediate)
        return engine


@contextmanager
def one_server_lock(data_dir: Path) -> Iterator[None]:
    """Hold a data directory for this process alone; the kernel lets go of it however the process ends.

    Raises `Conflict("already-running")` naming the process that holds it.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "server.lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise Conflict("already-running", f"{data_dir} is served by process {holder} already") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


# PostgreSQL: no such table, no such column, no right. Not the fault of any row.
_NOT_OURS = frozenset({"42P01", "42703", "42501"})
_REFUSALS = (DataError, IntegrityError, InterfaceError, ProgrammingError)


def is_away(error: DBAPIError) -> bool:
    """Whether the database failed, rather than refused what it was asked."""
    if getattr(error.orig, "sqlstate", None) in _NOT_OURS:
        return True
    return error.connection_invalidated or not isinstance(error, _REFUSALS)


def is_deadlock(error: StoreUnavailable) -> bool:
    """Whether PostgreSQL gave this transaction up for another's sake, however long that took."""
    cause = error.__cause__
    return isinstance(cause, DBAPIError) and getattr(cause.orig, "sqlstate", None) in _GIVEN_UP


@contextmanager
def _availability() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable("every connection to the database is in use") from error
    except sqlite3.Error as error:  # from a connection that SQLAlchemy does not know
        raise StoreUnavailable(str(error)) from error
    except DBAPIError as error:
        if is_away(error):
            raise StoreUnavailable(str(error.orig).strip()) from error
        raise


_GIVEN_UP = ("40P01", "40001")  # deadlock_detected, serialization_failure
_LOG_PAGES = 16_000  # at which the writer moves them itself after all: 64 MB
_WRITER_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    f"PRAGMA wal_autocheckpoint={_LOG_PAGES}",
    "PRAGMA recursive_triggers=ON",  # else INSERT OR REPLACE deletes past the append-only triggers
)
_READER_PRAGMAS = ("PRAGMA query_only=ON",)


def _run(connection: Any, statements: tuple[str, ...]) -> None:
    for statement in statements:
        connection.execute(statement)


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_immediate(connection: Connection) -> None:
    busy_ms = connection.get_execution_options().get("busy_ms", BUSY_MS)
    connection.exec_driver_sql(f"PRAGMA busy_timeout={busy_ms:d}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsError(_SETTING, "is not a database URL") from error
    match parsed.get_backend_name():
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return parsed
        case "postgresql":
            return parsed.set(drivername="postgresql+psycopg")
        case _:
            raise SettingsError(_SETTING, "must be sqlite:///path/to/file or postgresql://…")
