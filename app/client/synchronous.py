"""How does a program without an event loop ask for decisions and manage rollouts?"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from app.client.asynchronous import DEFAULT_URL, AsyncClient
from app.client.wire import Decision, Document

T = TypeVar("T")


class Client:
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
        self._url, self._key = url, key
        self._deadlines = {"deadline_s": deadline_s, "management_deadline_s": management_deadline_s}
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

    def get(self, path: str, /, **params: Any) -> Document:
        """Any document of the API, such as `get("/v1/rollouts/read/gate", to="advisory")`."""
        return self._run(self._opened().get(path, **params))

    def post(self, path: str, /, **body: Any) -> Document:
        """Any act of the API, such as `post("/v1/kill-switch", engaged=True, reason="…")`."""
        return self._run(self._opened().post(path, **body))

    def delete(self, path: str, /) -> Document:
        return self._run(self._opened().delete(path))

    def rollouts(self) -> list[Document]:
        return self._run(self._opened().rollouts())

    def rollout(self, name: str, /) -> Document:
        return self._run(self._opened().rollout(name))

    def gate(self, name: str, /, *, to: str) -> Document:
        return self._run(self._opened().gate(name, to=to))

    def guardrails(self, name: str, /) -> Document:
        return self._run(self._opened().guardrails(name))

    def evidence(self, name: str, /) -> Document:
        return self._run(self._opened().evidence(name))

    def promote(self, name: str, /, *, to: str, reason: str, expected_revision: int) -> Document:
        return self._run(
            self._opened().promote(name, to=to, reason=reason, expected_revision=expected_revision)
        )

    def rollback(self, name: str, /, *, reason: str) -> Document:
        return self._run(self._opened().rollback(name, reason=reason))

    def hold(self, name: str, /, *, reason: str) -> Document:
        return self._run(self._opened().hold(name, reason=reason))

    def resume(self, name: str, /, *, reason: str) -> Document:
        return self._run(self._opened().resume(name, reason=reason))

    def versions(self) -> list[Document]:
        return self._run(self._opened().versions())

    def change_version(self, name: str, /, *, action: str, reason: str, **options: Any) -> Document:
        """`action`: candidate, activate, revert or withdraw; `options` such as `version="…"`."""
        return self._run(self._opened().change_version(name, action=action, reason=reason, **options))

    def reviews(self, **filters: Any) -> list[Document]:
        return self._run(self._opened().reviews(**filters))

    def claim(self, review_id: str, /) -> Document:
        return self._run(self._opened().claim(review_id))

    def verdict(
        self, review_id: str, /, *, decision: str, category: str | None = None, notes: str = ""
    ) -> Document:
        return self._run(self._opened().verdict(review_id, decision=decision, category=category, notes=notes))

    def report(self, decision_id: str, /, *, decision: str, notes: str = "") -> Document:
        return self._run(self._opened().report(decision_id, decision=decision, notes=notes))

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

    def _fresh(self) -> AsyncClient:
        return AsyncClient(self._url, key=self._key, **self._deadlines)

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()
