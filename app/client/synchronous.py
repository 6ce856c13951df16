"""How does a program without an event loop ask for decisions and manage rollouts?"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from app.client.asynchronous import DEFAULT_URL, AsyncClient
from app.client.management import Management
from app.client.wire import Decision, Document

T = TypeVar("T")


class Client(Management[Document, list[Document]]):
    """`AsyncClient` for threads: the same promises, kept on an event loop of its own.

    Only a loop can end a call at its deadline while a server sends one byte at a time. Threads may
    share a client, and a forked process gets a loop of its own.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        deadline_s: float = 2.0,
        management_deadline_s: float = 30.0,
    ) -> None:
        deadlines = {"deadline_s": deadline_s, "management_deadline_s": management_deadline_s}
        self._fresh = partial(AsyncClient, url, key=key, **deadlines)
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._client = self._fresh()  # a wrong URL or key fails here, not at the first decision

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections and the loop go; the next call opens them again."""
        with self._lock:
            if self._pid != os.getpid():
                return
            self._pid = None
            asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._client = self._fresh()

    def decide(
        self,
        situation: Mapping[str, Any] | None = None,
        /,
        *,
        deadline_s: float | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Decision:
        """Ask for a decision on a situation, given whole or as keyword arguments, or both."""
        return self._run(
            self._opened().decide(situation, deadline_s=deadline_s, idempotency_key=idempotency_key, **fields)
        )

    def decide_batch(
        self, situations: Sequence[Mapping[str, Any]], /, *, deadline_s: float | None = None
    ) -> list[Decision]:
        """One decision a situation, in order; what failed denies in its place."""
        return self._run(self._opened().decide_batch(situations, deadline_s=deadline_s))

    def wait(self, decision_id: str, wait_s: float, /) -> Decision:
        """The decision in force, after up to `wait_s` for the verdict of an open review."""
        return self._run(self._opened().wait(decision_id, wait_s))

    def call(
        self, method: str, path: str, /, body: Document | None = None, params: Document | None = None
    ) -> Document:
        return self._run(self._opened().call(method, path, body, params))

    def list_of(self, member: str, path: str, /, params: Document | None = None) -> list[Document]:
        return self._run(self._opened().list_of(member, path, params))

    def _opened(self) -> AsyncClient:
        with self._lock:
            if self._pid != os.getpid():
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="phasegate-client", daemon=True
                )
                self._thread.start()
                if self._pid is not None:  # forked: the parent's connections are the parent's
                    self._client = self._fresh()
                self._pid = os.getpid()
            return self._client

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()
