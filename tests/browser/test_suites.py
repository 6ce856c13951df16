"""Can a person validate a version and take a report along, by keyboard and in a browser?"""

import re

from playwright.async_api import expect

from tests.browser.harness import Console
from tests.services.plane import VERSION
from tests.services.test_validate import suite


async def test_a_validation_says_that_it_runs_and_then_what_came_of_it(console: Console) -> None:
    suite(console.stage, "allow", "deny")
    page = await console.opens("/suites", "approver")
    await expect(page.get_by_text("No version was validated yet")).to_be_visible()
    console.stage.model.thinks()
    button = page.get_by_role("button", name="Validate")
    await button.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("one situation after another")).to_be_visible()
    console.stage.model.answers_now()
    await expect(page.locator("#result")).to_contain_text("1 of 2 passed")
    await expect(page.get_by_text("one situation after another")).to_be_hidden()
    await expect(page.get_by_role("region", name="Versions on suites")).to_contain_text(VERSION)
    await expect(button).to_be_focused()


async def test_a_report_is_read_in_its_frame_and_saved(console: Console) -> None:
    await console.stage.decide()
    page = await console.opens("/reports", "reviewer")
    await page.get_by_role("link", name="Today so far").click()
    frame = page.frame_locator("iframe")
    await expect(frame.get_by_role("heading", name="Checklist")).to_be_visible()
    ink = await frame.locator(".tiles dd").first.evaluate("node => getComputedStyle(node).fontWeight")
    assert ink == "600"  # its style is allowed, by its hash
    async with page.expect_download() as saved:
        await page.get_by_role("link", name="Markdown").click()
    assert re.fullmatch(r"phasegate-daily-[-0-9]{10}\.md", (await saved.value).suggested_filename)
