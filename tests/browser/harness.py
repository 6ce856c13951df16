"""How does a test see the console as a person does: a server, a browser, and eyes for what goes wrong?"""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import uvicorn
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response

from app.store.database import Database
from app.web.sessions import COOKIE
from tests.services.plane import ROLLOUTS, FakeModel, Stage, opened

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "no Chromium: apt-get install -y --no-install-recommends chromium"
PATIENCE_MS = 10_000  # for what takes a moment on an idle machine

_DATE = """(at => {
  const Real = globalThis.RealDate ??= Date, ahead = at - Real.now();
  globalThis.Date = class extends Real {
    constructor(...parts) { super(...(parts.length ? parts : [Real.now() + ahead])); }
    static now() { return Real.now() + ahead; }
  };
})(%d)"""

Scheme = Literal["light", "dark"]


def chromium() -> str | None:
    """The browser that this machine has."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Console:
    """A server with everything of it within reach, and the pages that people have open there.

    What a browser reports as wrong gathers in `troubles`: an error in its console, an exception on a page,
    a request to another host, an answer of 400 or above whose status is not among `expected`.
    """

    stage: Stage
    origin: str
    folder: Path  # for screenshots
    _browser: Browser
    expected: set[int] = field(default_factory=set)
    troubles: list[str] = field(default_factory=list)
    _contexts: list[BrowserContext] = field(default_factory=list)

    async def page(self, who: str | None = "admin", *, width: int = 1280, scheme: Scheme = "light") -> Page:
        """A page of a new browser, in which a holder of one of `Stage.keys` has signed in, or nobody."""
        context = await self._browser.new_context(
            base_url=self.origin,
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        self._contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        context.on("console", self._said)
        context.on("weberror", lambda error: self.troubles.append(f"exception: {error.error}"))
        context.on("request", self._asked)
        context.on("response", self._answered)
        await context.add_init_script(self._date())
        if who is not None:
            token = await self.stage.services.sign_in.by_key(self.stage.keys[who][1], address="test")
            await context.add_cookies([{"name": COOKIE, "value": token, "url": self.origin}])
        return await context.new_page()

    async def opens(
        self, path: str, who: str | None = "admin", *, width: int = 1280, scheme: Scheme = "light"
    ) -> Page:
        """A page that somebody has just opened."""
        page = await self.page(who, width=width, scheme=scheme)
        await page.goto(path)
        return page

    def expects(self, *statuses: int) -> None:
        """This test provokes refusals with these statuses."""
        self.expected.update(statuses)

    async def passes(self, **span: float) -> None:
        """Time goes by, for the server and for every page."""
        self.stage.clock.passes(**span)
        for context in self._contexts:
            await context.add_init_script(self._date())
            for page in context.pages:
                await page.evaluate(self._date())

    async def photograph(self) -> None:
        """Every open page as it looks now."""
        self.folder.mkdir(exist_ok=True)
        pages = [page for context in self._contexts for page in context.pages]
        for number, page in enumerate(pages, 1):
            await page.screenshot(path=self.folder / f"page-{number}.png", full_page=True)

    async def close(self) -> None:
        while self._contexts:
            await self._contexts.pop().close()

    def _date(self) -> str:
        """The server's date; Playwright's own clock would run the pages' timers too, and swallow what they throw."""
        return _DATE % (self.stage.clock.now().timestamp() * 1000)

    def _said(self, message: ConsoleMessage) -> None:
        # Of a refused request the console says nothing that the answer does not.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.troubles.append(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self.origin}/", "data:", "blob:")):
            self.troubles.append(f"a request left the origin: {request.url}")

    def _answered(self, response: Response) -> None:
        # TEMPORARY until the news are served
        if response.status >= 400 and response.status not in self.expected:
            self.troubles.append(f"{response.status} for {response.request.method} {response.url}")


@asynccontextmanager
async def console_over(
    database: Database, folder: Path, browser: Browser, *, rollouts: str = ROLLOUTS, **parts: Any
) -> AsyncIterator[Console]:
    """A server with a fake model over a migrated database; `parts` are those of `tests.services.plane.opened`.

    Fails where a browser saw something wrong.
    """
    async with opened(database, folder, rollouts=rollouts, **parts) as stage:
        async with served(stage) as origin:
            console = Console(stage, origin, folder / "screenshots", browser)
            try:
                yield console
            finally:
                await console.close()
        assert not console.troubles, "\n".join(console.troubles)


@asynccontextmanager
async def served(stage: Stage) -> AsyncIterator[str]:
    """The stage behind a real port of this machine, on this event loop: the test and the server take turns."""
    config = uvicorn.Config(
        stage.application, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1
    )
    server = _Quiet(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve([listener]))
        try:
            async with asyncio.timeout(PATIENCE_MS / 1000):
                await server.open.wait()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stage.services.notices.close()  # those who follow the news would be waited for
            server.should_exit = True
            await running


class _Quiet(uvicorn.Server):
    """Says when it is open, and leaves signals to the test runner."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.open = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.open.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


__all__ = ["MISSING", "Console", "FakeModel", "Scheme", "chromium", "console_over"]
