"""In which browser do the pages open, and what fails a test of them?"""

import inspect
import os
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from app.store.database import Database
from tests.browser.harness import MISSING, PATIENCE_MS, Console, chromium, console_over

_HERE = Path(__file__).parent
_failed = pytest.StashKey[bool]()

expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All on one event loop, where the browser, the server and the test take turns."""
    for item in items:
        if item.path.is_relative_to(_HERE) and inspect.iscoroutinefunction(getattr(item, "function", None)):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure names the folder with the pages as they looked."""
    report = yield
    if report.when == "call" and report.failed:
        item.stash[_failed] = True
        if (folder := getattr(item, "funcargs", {}).get("tmp_path")) is not None:
            report.sections.append(("screenshots", str(folder / "screenshots")))
    return report


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One for all tests; a machine without one counts as skipped, except where CI=true."""
    program = chromium()
    if program is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(MISSING)
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def console(
    request: pytest.FixtureRequest, sqlite_database: Database, tmp_path: Path, browser: Browser
) -> AsyncIterator[Console]:
    """A server of its own with small gates and a model that answers what it is told (tests/services/plane.py)."""
    async with console_over(sqlite_database, tmp_path, browser) as opened:
        yield opened
        if request.node.stash.get(_failed, False):
            await opened.photograph()
