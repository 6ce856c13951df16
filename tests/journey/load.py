"""How do many callers ask a real server at once, each keeping its answers?"""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from tests.journey.server import ADMIN_KEY, PATIENCE_S, Document, until


@dataclass(frozen=True, slots=True)
class Answered:
    """One HTTP answer, and how long its caller waited."""

    asked: Document
    status: int
    body: Document
    seconds: float


@dataclass(slots=True)
class Load:
    """Callers that ask again as soon as they are answered, until they are stopped or the server is gone."""

    port: int
    situations: Iterator[Document]
    key: str = ADMIN_KEY
    answers: list[Answered] = field(default_factory=list)
    stopped: bool = False

    async def run(self, callers: int) -> None:
        await asyncio.gather(*(self._caller() for _ in range(callers)))

    async def once(self, callers: int) -> list[Answered]:
        """Every caller asks once, all at the same time."""
        return list(await asyncio.gather(*(self._ask_once() for _ in range(callers))))

    async def _caller(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # the server is gone: no answer
            async with self._connected() as (reader, writer):
                while not self.stopped:
                    self.answers.append(await self._ask(reader, writer, next(self.situations)))

    async def _ask_once(self) -> Answered:
        async with self._connected() as (reader, writer):
            return await self._ask(reader, writer, next(self.situations))

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, situation: Document
    ) -> Answered:
        began = time.monotonic()
        body = json.dumps(situation).encode()
        head = (
            f"POST /v1/decisions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(answer.partition("content-length:")[2].split("\r\n", 1)[0])
        document = json.loads(await reader.readexactly(length))
        return Answered(situation, int(answer.split()[1]), document, time.monotonic() - began)


@contextlib.asynccontextmanager
async def under_load(load: Load, callers: int) -> AsyncIterator[Load]:
    """The load runs while the block does; its answers stay in `load`."""
    running = asyncio.create_task(load.run(callers))
    try:
        yield load
    finally:
        load.stopped = True
        async with asyncio.timeout(PATIENCE_S):
            await running


async def eventually(
    condition: Callable[[], bool], *, within_s: float = PATIENCE_S, what: str = "it"
) -> float:
    """`until`, beside a load that goes on."""
    return await asyncio.to_thread(until, condition, within_s=within_s, what=what)


def mixed(*makers: Callable[[int], Document]) -> Iterator[Document]:
    """Situations of each kind in turn, no two alike."""
    for number in itertools.count():
        yield makers[number % len(makers)](number)
