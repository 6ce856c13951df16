"""Does the harness see what goes wrong in a browser?"""

import re
from typing import Any

import pytest
from playwright.async_api import expect

from tests.browser.harness import Console


async def test_a_page_shows_what_the_server_of_the_test_knows(console: Console) -> None:
    await console.stage.decide("read")
    page = await console.opens("/", "operator")
    await expect(page).to_have_title(re.compile("Phasegate"))
    await expect(page.get_by_role("heading", level=1)).to_be_visible()


@pytest.mark.parametrize(
    ("script", "event", "trouble"),
    [
        ("console.error('oh')", "console", "console: oh"),
        ("setTimeout(() => { throw new Error('oh') })", "pageerror", "exception: "),
        ("fetch('http://127.0.0.2:9/').catch(() => 0)", "console", "console: Connecting to"),
        ("location.assign('http://127.0.0.2:9/')", "requestfailed", "a request left the origin"),
        ("fetch('/nowhere')", "response", "404 for GET"),
    ],
)
async def test_what_goes_wrong_in_a_page_is_a_trouble(
    console: Console, script: str, event: Any, trouble: str
) -> None:
    page = await console.opens("/", "operator")
    async with page.expect_event(event):
        await page.evaluate(script)
    assert any(each.startswith(trouble) for each in console.troubles), console.troubles
    console.troubles.clear()


async def test_an_expected_refusal_is_no_trouble(console: Console) -> None:
    console.expects(404)
    page = await console.opens("/", "operator")
    await page.evaluate("fetch('/nowhere')")
