"""A small real HTTP server that answers what a test told it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived. `headers` have lower-case names."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """`body` is sent as JSON, or as it is where it is bytes."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Seen], Reply]


class Peer:
    """`answer` may be replaced at any time; `seen` holds every request in order."""

    def __init__(self, port: int, released: threading.Event) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.seen: list[Seen] = []
        self.answer: Handler = lambda _: Reply(404, problem(404, "not-found", "no such route"))
        self.released = released  # set when the test is over: a handler that hangs waits for it

    def replies(self, *replies: Reply) -> None:
        """Give these in order; the last one again and again."""
        waiting = list(replies)
        self.answer = lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def hangs(self) -> None:
        """Accept requests and never answer them."""

        def hang(_: Seen) -> Reply:
            self.released.wait()
            return Reply(500)

        self.answer = hang


def problem(status: int, kind: str, title: str, **facts: Any) -> dict[str, Any]:
    return {"type": f"https://phasegate.dev/problems/{kind}", "title": title, "status": status, **facts}


@contextmanager
def serving() -> Iterator[Peer]:
    """A peer on a free port of the loopback."""
    peers: list[Peer] = []

    class Handle(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen = Seen(self.command, self.path, headers, json.loads(raw) if raw else None, raw)
            peers[0].seen.append(seen)
            reply = peers[0].answer(seen)
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _handle  # noqa: N815 -- the library's names

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that hung up is what some tests are about."""

    with Server(("127.0.0.1", 0), Handle) as server:
        released = threading.Event()
        peers.append(Peer(server.server_address[1], released))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield peers[0]
        finally:
            released.set()
            server.shutdown()
            thread.join()
