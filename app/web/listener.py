"""Where does the server listen, and how does it begin and end?"""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import uvicorn
from litestar.types import ASGIApp

from app.errors import Conflict, PhasegateError, SettingsError

# What a name such as localhost may stand for where IPv6 is switched off.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_GRACE_S = 5  # for requests that run when the end comes


def listen(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    before: Callable[[], None],
    started: Callable[[], None],
    ending: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM, then return.

    `before` is called when the port is taken, `started` when it is open, `ending` before the requests that
    still run are waited for. Raises `Conflict` where another program has the port, `SettingsError` where
    the host cannot be listened on.
    """
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    with ExitStack() as stack:
        listeners = _bound(host, port, stack)
        before()
        _Announced(config, started, ending).run(listeners)


def _bound(host: str, port: int, stack: ExitStack) -> list[socket.socket]:
    """The addresses of a host name that this machine has, taken but not yet listened on.

    Taken here and not by uvicorn, which would tell its log alone what hinders it.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        taken = [_taken(family, address, stack) for family, *_, address in found]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                "port-taken", f"{host}:{port} is in use by another program; PHASEGATE_PORT chooses another"
            ) from error
        raise SettingsError("PHASEGATE_HOST", f"cannot listen on {host}:{port}: {error.strerror}") from error
    listeners = [listener for listener in taken if listener is not None]
    if not listeners:
        raise SettingsError("PHASEGATE_HOST", f"{host} is no address of this machine")
    return listeners


def _taken(family: int, address: tuple[Any, ...], stack: ExitStack) -> socket.socket | None:
    """None where this machine has no such address."""
    try:
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return None
        raise
    return listener


class _Announced(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, started: Callable[[], None], ending: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._started, self._ending = started, ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit as exit_:  # uvicorn has logged why
            raise PhasegateError("the server cannot start; its log says why") from exit_
        if self.started:
            self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's, ends there: raising the signal again would kill what still has to be closed."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()
