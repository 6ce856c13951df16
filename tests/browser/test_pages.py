"""Can everybody read and work every page: in light and dark, wide and narrow, without a mouse or without eyes?"""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from litestar.routes import HTTPRoute
from playwright.async_api import Browser, Page

from app.store.database import Database
from app.web.console.routes import console as routes
from tests.browser.furniture import Furniture, candidate, furnish
from tests.browser.harness import Console, Scheme, console_over

AXE = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    },
    "resultTypes": ["violations"],
}
WIDE, NARROW = 1280, 390

# Every page by its route, at an address where there is something to see.
PAGES = {
    "/": "/",
    "/rollouts/{name:str}": "/rollouts/read",
    "/reviews": "/reviews",
    "/reviews/{review_id:str}": "/reviews/{review}",
    "/decisions": "/decisions",
    "/decisions/{decision_id:str}": "/decisions/{decision}",
    "/approvals": "/approvals",
    "/versions": "/versions",
    "/versions/{version_id:str}": "/versions/fake-1",
    "/suites": "/suites",
    "/suites/{name:str}": "/suites/mine",
    "/validations/{name:str}": "/validations/{validation}",
    "/reports": "/reports",
    "/reports/{period:str}": "/reports/weekly",
    "/reference": "/reference",
    "/audit": "/audit",
    "/keys": "/keys",
    "/system": "/system",
    "/account": "/account",
    "/sign-in": "/sign-in",
    "/sign-in/{token:str}": "/sign-in/used",
}
MORE = (
    "/rollouts/write",
    "/rollouts/deploy",
    "/decisions/{waiting}",
    "/decisions?actor=nobody",
    "/decisions/none",
)
# What is fetched by a page or saved as a file, and is no page of its own.
PARTS = {"/live", "/live/alarm", "/decisions.csv", "/decisions.jsonl", "/audit.csv", "/audit.jsonl"}
PARTS |= {
    "/decisions/{decision_id:str}/chain",
    "/decisions/{decision_id:str}/why",
    "/reports/{period:str}/document",
}
PARTS |= {"/reviews/next", "/reviews/pace", "/reviews/{review_id:str}/reasons", "/oidc/back"}
PARTS |= {"/system/preflight", "/system/deliveries"}

# Everything that Tab should reach: one of a group of radio buttons stands for all.
_CONTROLS = """() => {
  const groups = new Set();
  return [...document.querySelectorAll(
    "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0'], iframe"
  )].filter(e => {
    if (e.disabled || e.tabIndex < 0 || !e.checkVisibility({ visibilityProperty: true }) || e.closest("[inert]")) return false;
    if (e.type !== "radio") return true;
    const is_new = !groups.has(e.name);
    groups.add(e.name);
    return is_new;
  });
}"""
_LISTEN = """() => {
  globalThis.reached = new Set();
  globalThis.unseen = new Set();
  document.addEventListener("focusin", ({ target }) => {
    reached.add(target.type === "radio" ? target.name : target);
    if (target.tabIndex < 0) return;  // led there by a script, on the way to a control
    const { outlineStyle, boxShadow } = getComputedStyle(target);
    if (outlineStyle === "none" && boxShadow === "none") unseen.add(target.outerHTML.slice(0, 120));
  });
  // Of a step into a frame the page hears no more than that it has lost the focus.
  window.addEventListener("blur", () => setTimeout(() => reached.add(document.activeElement)));
}"""
_MISSED = f"""() => ({_CONTROLS})()
  .filter(e => !reached.has(e.type === "radio" ? e.name : e))
  .map(e => e.outerHTML.slice(0, 120))"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def furnished(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> AsyncIterator[tuple[Console, Furniture]]:
    """One server for all pages: they only look."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copy(migrated_sqlite, folder / "plane.db")
    database = Database(f"sqlite:///{folder / 'plane.db'}")
    try:
        async with console_over(database, folder, browser, others=[candidate()]) as console:
            yield console, await furnish(console.stage)
    finally:
        database.close()


@pytest_asyncio.fixture(loop_scope="session")
async def seen(furnished: tuple[Console, Furniture], request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    """The page at the test's address, as an admin sees it; what a browser finds wrong fails this very test."""
    console, furniture = furnished
    address = request.getfixturevalue("address").format(**vars(furniture))
    who = None if address.startswith("/sign-in") else "admin"
    console.expected = {"/decisions/none": {404}, "/sign-in/used": {403}}.get(address, set())
    yield await console.opens(address, who)
    troubles, console.troubles = console.troubles, []
    await console.close()
    assert not troubles, "\n".join(troubles)


every_page = pytest.mark.parametrize("address", [*PAGES.values(), *MORE])


def test_no_page_is_left_out() -> None:
    shown = {route.path for route in routes.routes if isinstance(route, HTTPRoute) and "GET" in route.methods}
    assert shown == {*PAGES, *PARTS}


@every_page
async def test_a_page_has_a_title_one_heading_above_all_and_what_axe_asks_for(
    seen: Page, address: str
) -> None:
    assert (await seen.title()).endswith("· Phasegate")
    assert await seen.locator("h1").count() == 1
    wrong: dict[str, list[str]] = {}
    for width in (WIDE, NARROW):
        await seen.set_viewport_size({"width": width, "height": 900})
        for scheme in get_args(Scheme):
            await seen.emulate_media(color_scheme=scheme)
            wrong |= {f"{scheme} {width}": found for found in [await violations(seen)] if found}
    assert wrong == {}


@every_page
async def test_a_narrow_screen_scrolls_no_page_sideways(seen: Page, address: str) -> None:
    await seen.set_viewport_size({"width": NARROW, "height": 900})
    over = await seen.evaluate(
        """() => [...document.querySelectorAll("main *")]
          .filter(e => e.getBoundingClientRect().right > innerWidth && !e.parentElement.closest(".scroll, dialog, svg"))
          .map(e => e.outerHTML.slice(0, 120)).slice(0, 5)"""
    )
    width = await seen.evaluate("document.documentElement.scrollWidth")
    assert width <= NARROW, over


@every_page
async def test_tab_reaches_every_control_and_shows_where_it_is(seen: Page, address: str) -> None:
    await seen.evaluate(_LISTEN)
    pressed = 0
    # Counted anew each time, since a card may come late; a field for a date is several stops.
    while pressed < await seen.evaluate(f"({_CONTROLS})().length") + 15:
        await seen.keyboard.press("Tab")
        pressed += 1
    assert await seen.evaluate(_MISSED) == []
    assert await seen.evaluate("() => [...unseen]") == []


async def violations(page: Page) -> list[str]:
    """Rules that a page breaks, with the first element that does."""
    found: Any = (await Axe().run(page, options=AXE)).response["violations"]
    return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}" for one in found]
