"""Who ends the wait for a database that was asked and neither answers nor goes away?"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class LineWatch:
    """Cuts the connection under whatever lasts longer than it may; looks every `every_s`.

    A frozen server's machine keeps its sockets alive, so that no time-out of the network's ends the wait.
    Cut, it looks like a server that went away. Its thread runs from the first use to `close`.
    """

    def __init__(self, *, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._lines: dict[socket.socket, float] = {}
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @contextmanager
    def over(self, descriptor: int, *, at_most_s: float) -> Iterator[None]:
        """Watch the block, which uses the connection with this file descriptor."""
        self._start()
        # A descriptor of its own: the connection's may be closed, and its number taken by another, meanwhile.
        with socket.socket(fileno=os.dup(descriptor)) as line:
            self._lines[line] = time.monotonic() + at_most_s
            try:
                yield
            finally:
                del self._lines[line]

    def close(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._closing.set()
                thread.join()
                self._closing.clear()

    def _start(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._watch, name="line watch", daemon=True)
                    self._thread.start()

    def _watch(self) -> None:
        while not self._closing.wait(self._every_s):
            now = time.monotonic()
            for line in [line for line, until in list(self._lines.items()) if now >= until]:
                with suppress(OSError):  # it ended by itself just now
                    line.shutdown(socket.SHUT_RDWR)
