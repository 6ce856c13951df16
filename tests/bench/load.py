"""How many requests a second does a server answer, and how late are the answers?"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import httpx

CONNECTIONS = 64
_CORES = sorted(os.sched_getaffinity(0))  # before the load generator takes one for itself


@dataclass(slots=True)
class Load:
    """What one run came to. Latencies in seconds."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    failures: int = 0

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000


class _Connection(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it is answered, or when its pace says so."""

    def __init__(self, load: Load, request: Callable[[], bytes], *, pause_s: float) -> None:
        self._load = load
        self._request = request
        self._pause_s = pause_s
        self._buffer = b""
        self._sent_at = 0.0
        self.stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, mark, rest = self._buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        self._buffer = b""
        self._load.latencies.append(time.perf_counter() - self._sent_at)
        if not head.startswith(b"HTTP/1.1 200"):
            self._load.failures += 1
        if self.stopped:
            self._transport.close()
        elif self._pause_s:
            asyncio.get_running_loop().call_later(self._pause_s, self._ask)
        else:
            self._ask()

    def _ask(self) -> None:
        if not self.stopped and not self._transport.is_closing():
            self._sent_at = time.perf_counter()
            self._transport.write(self._request())


async def drive(
    port: int,
    request: Callable[[], bytes],
    *,
    seconds: float,
    connections: int = CONNECTIONS,
    pause_s: float = 0.0,
) -> Load:
    """Ask for `seconds` over `connections`, each pausing between an answer and the next request."""
    load = Load(seconds)
    loop = asyncio.get_running_loop()
    made = [
        (
            await loop.create_connection(
                lambda: _Connection(load, request, pause_s=pause_s), "127.0.0.1", port
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    for connection in made:
        connection.stopped = True
    answered = list(load.latencies)
    await asyncio.sleep(0.2)
    load.latencies = answered
    return load


def post(path: str, body: bytes, *, key: str = "none") -> bytes:
    """One HTTP request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(
    command: list[str], port: int, *, env: dict[str, str], ready: str, is_pinned: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own, on the first core; up when `ready` answers 200."""
    process = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {_CORES[0]} if is_pinned else _CORES),
    )
    try:
        _await(f"http://127.0.0.1:{port}{ready}", process)
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url).status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{url} does not answer")


def resident_mib(pid: int) -> float:
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")
