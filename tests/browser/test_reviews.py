"""Does somebody judge all day without the mouse?"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from app.domain.phase import Phase
from app.store.database import Database
from tests.browser.harness import Console, console_over

CARDS = 30


@pytest_asyncio.fixture(loop_scope="session")
async def queue(sqlite_database: Database, tmp_path: Path, browser: Browser) -> AsyncIterator[Console]:
    """Thirty drawn reviews of both modes."""
    async with console_over(sqlite_database, tmp_path, browser) as console:
        await console.stage.enter("read", Phase.ENFORCED)
        for number in range(CARDS):
            await console.stage.decide("read", actor=f"actor-{number}")
        yield console


async def is_ready(page: Page) -> None:
    """Until there is a card that takes a key."""
    await expect(page.locator("#desk:not([data-review='']) .verdicts button").first).to_be_enabled()


async def test_thirty_items_are_judged_without_the_mouse(queue: Console) -> None:
    page = await queue.opens("/reviews", "reviewer")
    reviews = page.get_by_role("region", name="Review of")
    modes = set()
    for number in range(CARDS):
        await expect(reviews).to_be_visible()
        await is_ready(page)
        mode = await page.locator(".pill.mode").inner_text()
        modes.add(mode)
        card = await page.locator("#desk").get_attribute("data-review")
        assert (await page.get_by_text("LLM recommends").is_visible()) is (mode == "assisted")
        await page.keyboard.press("123"[number % 3])
        if mode == "blind":
            await expect(page.get_by_role("heading", name="Side by side")).to_be_visible()
            await is_ready(page)
            await page.keyboard.press("n" if number % 2 else "Enter")
        await expect(page.locator(f"#desk[data-review='{card}']")).to_have_count(0)
    await expect(page.get_by_text("Nothing waits for you here")).to_be_visible()
    assert modes == {"blind", "assisted"}
    assert len(queue.stage.queue("judged")) == CARDS
    await expect(page.get_by_text("30 judged")).to_be_visible()


async def test_a_key_that_is_held_down_judges_one_card(queue: Console) -> None:
    page = await queue.opens("/reviews", "reviewer")
    await is_ready(page)
    for _ in range(6):
        await page.keyboard.down("3")
    await page.keyboard.up("3")
    await expect(page.get_by_text("1 judged")).to_be_visible()
    assert len(queue.stage.queue("judged")) == 1


async def test_a_digit_that_names_a_page_judges_nothing(queue: Console) -> None:
    page = await queue.opens("/reviews", "reviewer")
    await is_ready(page)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    await page.keyboard.press("g")
    await page.keyboard.press("1")
    await expect(page.get_by_role("heading", name="Board")).to_be_visible()
    assert "POST" not in sent


async def test_what_was_typed_of_one_card_is_not_said_of_the_next(queue: Console) -> None:
    page = await queue.opens("/reviews", "reviewer")
    await is_ready(page)
    card = await page.locator("#desk").get_attribute("data-review")
    await page.get_by_text("Category and notes").click()
    notes = page.get_by_role("textbox", name="Notes")
    await notes.fill("half a thought")
    await page.get_by_role("heading", name="Reviews").click()
    await page.keyboard.press("s")
    await expect(page.locator(f"#desk[data-review='{card}']")).to_have_count(0)
    await expect(notes).to_have_value("")


async def test_keys_are_letters_while_somebody_types(queue: Console) -> None:
    page = await queue.opens("/reviews", "reviewer")
    await is_ready(page)
    await page.keyboard.press("f")
    note = page.get_by_role("textbox", name="What should they look at?")
    await expect(note).to_be_focused()
    await page.keyboard.type("1 u s 3")
    await expect(note).to_have_value("1 u s 3")
    assert queue.stage.queue("judged") == []
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Flagged for an operator.")).to_be_visible()
    await expect(note).to_be_hidden()
    operator = await queue.opens("/reviews?flagged=1", "operator")
    await expect(operator.get_by_role("cell", name="1 u s 3")).to_be_visible()


async def test_undo_skip_and_turning_between_cards_take_a_key_each(queue: Console) -> None:
    page = await queue.opens("/reviews", "reviewer")
    desk = page.locator("#desk")
    await is_ready(page)
    first = await desk.get_attribute("data-review")
    await page.keyboard.press("j")
    await expect(desk).not_to_have_attribute("data-review", str(first))
    await is_ready(page)
    await page.keyboard.press("k")
    await expect(desk).to_have_attribute("data-review", str(first))
    await is_ready(page)
    await page.keyboard.press("s")
    await expect(desk).not_to_have_attribute("data-review", str(first))
    await is_ready(page)
    judged = await desk.get_attribute("data-review")
    await page.keyboard.press("1")
    await expect(page.locator(f"#desk[data-state=open][data-review='{judged}']")).to_have_count(0)
    await page.keyboard.press("u")
    await expect(page.get_by_text("Taken back. Judge it again.")).to_be_visible()
    await expect(desk).to_have_attribute("data-review", str(judged))
    assert queue.stage.queue("judged") == []


async def test_a_reload_finds_the_card_in_hand(queue: Console) -> None:
    page = await queue.opens("/reviews", "reviewer")
    desk = page.locator("#desk[data-state=open]")
    await expect(desk).to_be_visible()
    held = await desk.get_attribute("data-review")
    await page.reload()
    await expect(desk).to_have_attribute("data-review", str(held))


async def test_a_claim_that_has_ended_is_said(queue: Console) -> None:
    page = await queue.opens("/reviews", "reviewer")
    await expect(page.locator("#claim[data-until]")).to_be_visible()
    await queue.passes(minutes=11)
    await expect(page.get_by_text("Your claim has ended")).to_be_visible()


async def test_every_act_is_large_enough_for_a_thumb_and_the_page_does_not_move_sideways(
    queue: Console,
) -> None:
    page = await queue.opens("/reviews", "reviewer", width=390)
    await is_ready(page)
    for button in await page.locator("#judge button:visible").all():
        box = await button.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["width"] >= 44
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390


async def test_the_next_card_stands_there_before_the_verdict_is_answered(queue: Console) -> None:
    page = await queue.opens("/reviews", "reviewer")
    await is_ready(page)
    while await page.locator("#desk[data-mode=assisted]").count() == 0:
        card = await page.locator("#desk").get_attribute("data-review")
        await page.keyboard.press("s")
        await expect(page.locator(f"#desk[data-review='{card}']")).to_have_count(0)
        await is_ready(page)
    wanted = page.locator("#judge [name=wanted]")
    await expect(wanted).not_to_have_value("")
    next_card = await wanted.input_value()
    hold = page.locator(f"#card-{next_card}")
    await expect(hold).to_have_count(0)
    await page.evaluate(
        "document.addEventListener('htmx:before:response', () => { window.stood = document.querySelector('#desk > article').id })"
    )
    await page.keyboard.press("1")
    await expect(page.locator("#desk")).to_have_attribute("data-review", next_card)
    assert await page.evaluate("window.stood") == f"card-{next_card}"


async def test_a_caller_who_begins_to_wait_is_announced_and_taken_by_a_key(queue: Console) -> None:
    page = await queue.opens("/reviews", "reviewer")
    await is_ready(page)
    card = str(await page.locator("#desk").get_attribute("data-review"))
    await queue.stage.enter("write", Phase.ADVISORY)
    waiting = (await queue.stage.decide("write", legacy="require_attestation"))["review"]["id"]
    queue.stage.services.notices.publish("review", {})
    await expect(page.get_by_role("button", name="A caller waits")).to_be_visible()
    await expect(page.locator("#desk")).to_have_attribute("data-review", card)
    await page.keyboard.press("w")
    await expect(page.locator("#desk")).to_have_attribute("data-review", waiting)
    await expect(page.get_by_role("button", name="A caller waits")).to_have_count(0)
