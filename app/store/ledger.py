"""How do many waiting records become one durable commit, and what if the database is away?"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any, TypeVar

import structlog

from app.errors import NotRecorded, StoreUnavailable
from app.observability import COMMIT_ROWS, COMMIT_SECONDS, Event
from app.store.database import Database, is_deadlock
from app.store.entry import Entry, Guard, Receipt, decode, encode, write, write_missing
from app.store.hashing import Head
from app.store.journal import Journal
from app.store.transaction import Transaction
from app.store.waiters import Item, deliver, grouped

__all__ = ["Entry", "Guard", "Ledger", "LedgerState", "Receipt"]

_BATCH = 256  # entries a commit, at most
_REPLAY = 512  # entries a replay's commit, at most
_TRY_AGAIN_S = 1.0  # a failure that came sooner gets one more try, such as a connection gone stale
_BACKOFF_S = (0.1, 2.0)
_IDLE_S = 1.0
_GATHER_S = 0.001

T = TypeVar("T")
log = structlog.get_logger(__name__)


class LedgerState(StrEnum):
    OK = "ok"
    JOURNALING = "journaling"


class Ledger:
    """One thread that writes everything of one process, in the order in which it was asked.

    `instance` names this process's chain and counters: no two may share it. While the database is away,
    appended entries go to the journal, which is replayed in order, once, before anything newer is written.
    """

    def __init__(
        self,
        database: Database,
        journal: Journal,
        instance: str,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self._database, self._journal, self._instance, self._clock = database, journal, instance, clock
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._head: Head | None = None
        self._is_committing = self._is_crowded = False
        self._state = LedgerState.JOURNALING if journal.size else LedgerState.OK
        self._cursor = 0  # how far the journal has been replayed
        self._backoff_s, self._probe_at = _BACKOFF_S[0], 0.0
        self._thread = threading.Thread(target=self._serve, name="ledger")
        self._thread.start()

    @property
    def state(self) -> LedgerState:
        return self._state

    @property
    def instance(self) -> str:
        return self._instance

    @property
    def waiting_bytes(self) -> int:
        """What the journal holds, which the database has yet to take."""
        return self._journal.size

    def append(self, entry: Entry) -> asyncio.Future[Receipt]:
        """Record an entry, together with whatever else is waiting.

        Raises, through the future, `NotRecorded`: nothing of it was written and no decision may leave.
        """
        return self._ask(entry)

    def run(self, work: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """Run `work` in a transaction of its own; what it raises rolls everything back.

        It may be called a second time where the first ended in a deadlock or on a stale connection, so
        it changes nothing but the transaction. Raises `StoreUnavailable` while the database is away, and
        where the connection was lost in the commit, whose outcome then nobody knows.
        """
        return self._ask(work)

    def close(self) -> None:
        """Finish what waits and end the thread; later calls raise `NotRecorded`."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _ask(self, what: Entry | Callable[[Transaction], Any]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        item = Item(what, loop.create_future(), loop)
        with self._lock:
            if self._closed:
                raise NotRecorded("the ledger is closed")
            self._queue.put(item)
        return item.future

    def _serve(self) -> None:
        is_open = True
        while is_open:
            items, is_open = self._take()
            for group in grouped(items):
                self._settle(group)
            if self._state is LedgerState.JOURNALING:
                self._replay_when_due()
        self._probe_at = 0.0
        self._catch_up()

    def _take(self) -> tuple[list[Item], bool]:
        """What waits, at most a batch; and whether more may come."""
        items: list[Item] = []
        with suppress(queue.Empty):
            while len(items) < _BATCH:
                item = self._queue.get_nowait() if items else self._first()
                if item is None:
                    return items, False
                items.append(item)
        self._is_crowded = len(items) > 1
        return items, bool(items) or threading.main_thread().is_alive()

    def _first(self) -> Item | None:
        """Where several wait, more are coming: a commit for all of them costs little more than for one."""
        item = self._queue.get(timeout=self._patience_s())
        if self._is_crowded:
            time.sleep(_GATHER_S)
        return item

    def _patience_s(self) -> float:
        if self._state is LedgerState.OK:
            return _IDLE_S
        return min(max(self._probe_at - time.monotonic(), 0.001), _IDLE_S)

    def _settle(self, group: Sequence[Item]) -> None:
        first = group[0].what
        if isinstance(first, Entry):
            outcomes = self._record([item.what for item in group if isinstance(item.what, Entry)])
        else:
            outcomes = [self._run(first)]
        deliver(group, outcomes)

    def _record(self, entries: list[Entry]) -> list[Any]:
        """A receipt or an exception for each entry."""
        if self._state is LedgerState.JOURNALING:
            return self._to_journal(entries)
        try:
            recorded = self._transact(lambda tx: write(tx, entries))
        except StoreUnavailable as error:
            self._suspend(error)
            return self._to_journal(entries)
        except Exception as error:  # noqa: BLE001 one entry is refused: the others must not be lost with it
            if len(entries) == 1:
                return [_not_recorded(error)]
            half = len(entries) // 2
            return self._record(entries[:half]) + self._record(entries[half:])
        COMMIT_ROWS.observe(len(entries))
        return [_receipt(entry) for entry in recorded]

    def _to_journal(self, entries: list[Entry]) -> list[Any]:
        outcomes: list[Any] = []
        payloads: list[bytes] = []
        for entry in entries:
            outcome = _journal_form(entry)
            if isinstance(outcome, tuple):
                receipt, payload = outcome
                payloads.append(payload)
                outcomes.append(receipt)
            else:
                outcomes.append(outcome)
        try:
            if payloads:
                self._journal.append(payloads)
        except OSError as error:
            log.error(Event.JOURNAL_FAILED, error=str(error))  # noqa: TRY400 the waiters get the exception
            return [_not_recorded(error) for _ in entries]
        return outcomes

    def _run(self, work: Callable[[Transaction], Any]) -> Any:
        self._catch_up()
        if self._state is LedgerState.JOURNALING:
            return StoreUnavailable("the database is away; decisions go to the journal")
        try:
            return self._transact(work)
        except StoreUnavailable as error:
            self._suspend(error)  # what waits behind it need not find out again, each for seconds
            return error
        except Exception as error:  # noqa: BLE001 whatever it is belongs to the waiter
            return error

    def _transact(self, work: Callable[[Transaction], T]) -> T:
        started = time.monotonic()
        try:
            return self._once(work)
        except StoreUnavailable as error:
            # After a failed commit nobody knows whether it is there: only an idempotent replay may follow.
            came_soon = time.monotonic() - started <= _TRY_AGAIN_S or is_deadlock(error)
            if self._is_committing or not came_soon:
                raise
        return self._once(work)

    def _once(self, work: Callable[[Transaction], T]) -> T:
        head, self._head, self._is_committing = self._head, None, False
        with COMMIT_SECONDS.time(), self._database.write() as connection:
            tx = Transaction(connection, self._instance, head)
            result = work(tx)
            head = tx.finish(self._clock())
            self._is_committing = True
        self._head = head
        return result

    def _suspend(self, error: Exception) -> None:
        log.warning(Event.STORE_LOST, error=str(error))
        self._state, self._backoff_s = LedgerState.JOURNALING, _BACKOFF_S[0]
        self._probe_at = time.monotonic() + self._backoff_s

    def _catch_up(self) -> None:
        while self._state is LedgerState.JOURNALING and time.monotonic() >= self._probe_at:
            self._replay_when_due()

    def _replay_when_due(self) -> None:
        """Replay the next part of the journal, or find that the database is still away."""
        if time.monotonic() < self._probe_at:
            return
        try:
            payloads, end = self._journal.read(self._cursor, limit=_REPLAY)
            self._replay(payloads)
            self._cursor = end
            if end == self._journal.size:
                self._resume()
        except Exception as error:  # noqa: BLE001 the thread goes on and tries again
            if not isinstance(error, StoreUnavailable):
                log.error(Event.REPLAY_FAILED, error=str(error))  # noqa: TRY400 its values are not for the log
            self._backoff_s = min(self._backoff_s * 2, _BACKOFF_S[1])
            self._probe_at = time.monotonic() + self._backoff_s

    def _replay(self, payloads: list[bytes]) -> None:
        try:
            self._head = None
            with self._database.probe() as connection:
                tx = Transaction(connection, self._instance)
                write_missing(tx, [decode(payload) for payload in payloads])
                tx.finish(self._clock())
        except (StoreUnavailable, OSError):
            raise
        except Exception as error:
            if len(payloads) > 1:
                half = len(payloads) // 2
                self._replay(payloads[:half])
                self._replay(payloads[half:])
                return
            if not payloads:
                raise
            log.error(Event.REPLAY_REJECTED, error=str(error))  # noqa: TRY400 its values are not for the log
            self._journal.set_aside(payloads[0])

    def _resume(self) -> None:
        self._journal.clear()
        self._cursor, self._state = 0, LedgerState.OK
        log.info(Event.STORE_BACK)


def _receipt(entry: Entry | None) -> Receipt | NotRecorded:
    return (
        Receipt(entry, journaled=False)
        if entry
        else NotRecorded("the guard does not hold and nothing stands in")
    )


def _journal_form(entry: Entry) -> tuple[Receipt, bytes] | NotRecorded:
    unguarded = entry.unguarded
    if unguarded is None:
        return NotRecorded("the guard cannot be checked and nothing stands in")
    try:
        return Receipt(unguarded, journaled=True), encode(unguarded)
    except (TypeError, ValueError) as error:
        return _not_recorded(error)


def _not_recorded(error: Exception) -> NotRecorded:
    refusal = NotRecorded(str(error))
    refusal.__cause__ = error
    return refusal
