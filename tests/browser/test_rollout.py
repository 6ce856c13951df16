"""Does a rollout's page stay true while it is open, by keyboard alone and with its charts?"""

import re

from playwright.async_api import expect

from app.domain.phase import Phase
from tests.browser.harness import Console
from tests.services.plane import Stage


async def observed_twice(stage: Stage, *, model: str = "allow") -> None:
    """Observations of two stretches of time, each judged."""
    for seen in (12, 24):
        for number in range(12):
            await stage.decide(actor=f"actor-{number}", model=model)
        await stage.observed(n=seen)
        await stage.looks(every_s=90)


async def test_an_automatic_rollback_arrives_on_the_open_page_and_is_said(console: Console) -> None:
    stage = console.stage
    await stage.enter("read", Phase.ENFORCED)
    page = await console.opens("/rollouts/read", "operator")
    present = page.locator(".ladder .present")
    await expect(present).to_contain_text("Enforced")
    for number in range(40):
        await stage.decide(actor=f"actor-{number}", model="malformed")
    [rollback] = await stage.looks(times=3, every_s=5)
    assert rollback["automatic"]
    await expect(present).to_contain_text("Advisory")
    await expect(page.get_by_role("alert").filter(has_text="the service rolled read back")).to_be_visible()
    await expect(page.get_by_role("button", name="Close investigation…")).to_be_visible()


async def test_a_double_click_rolls_back_once(console: Console) -> None:
    await console.stage.enter("read", Phase.ENFORCED)
    page = await console.opens("/rollouts/read", "operator")
    await page.keyboard.press("r")
    await page.get_by_role("button", name="Roll back", exact=True).dblclick(delay=30)
    await expect(page.get_by_role("button", name="Close investigation…")).to_be_visible()
    await expect(page.locator(".ladder .present")).to_contain_text("Advisory")
    assert console.stage.state("read").phase is Phase.ADVISORY


async def test_news_close_neither_a_dialog_nor_the_numbers_that_somebody_reads(console: Console) -> None:
    stage = console.stage
    await observed_twice(stage)
    page = await console.opens("/rollouts/read", "operator")
    numbers = page.locator("#numbers-error")
    await numbers.locator("summary").click()
    await page.keyboard.press("h")
    reason = page.get_by_role("dialog").get_by_label("Reason")
    await expect(reason).to_be_focused()
    await page.keyboard.type("the auditors come")
    await stage.services.levers.hold("read", reason="another was first", by=stage.principal("approver"))
    await expect(page.locator(".standing")).to_contain_text("another was first")
    await expect(reason).to_be_focused()
    await expect(reason).to_have_value("the auditors come")
    await expect(numbers).to_have_attribute("open", "")


async def test_charts_are_drawn_and_again_where_the_numbers_or_the_width_are_others(console: Console) -> None:
    stage = console.stage
    await observed_twice(stage)
    page = await console.opens("/rollouts/read", "auditor")
    plot = page.locator("#plot-error")
    await expect(plot.locator("canvas")).to_have_count(2)
    first = await plot.get_attribute("data-series")
    await observed_more(stage)
    await expect(plot).not_to_have_attribute("data-series", first or "")
    await expect(plot.locator("canvas")).to_have_count(2)
    await page.set_viewport_size({"width": 390, "height": 800})
    await expect(plot.locator(".uplot").first).to_have_css(
        "width", re.compile(r"^(2\d\d|3[0-4]\d)(\.\d+)?px$")
    )


async def observed_more(stage: Stage) -> None:
    for number in range(12):
        await stage.decide(actor=f"more-{number}")
    await stage.observed(n=36)
    await stage.looks(every_s=90)
    await stage.services.levers.hold("read", reason="a drill", by=stage.principal("operator"))
