"""Does a person get done on the console what they came for, with the keyboard and by what the page says?"""

import re

import pytest
from playwright.async_api import Page, expect

from app.domain.phase import Phase
from app.store import tables as t
from tests.browser.harness import Console


async def tab_to(page: Page, name: str) -> None:
    """Walk with Tab until the focus is on the control of that name."""
    for _ in range(200):
        await page.keyboard.press("Tab")
        if await page.evaluate("() => document.activeElement.textContent.trim()") == name:
            return
    pytest.fail(f"Tab does not reach {name!r}")


async def test_a_new_person_comes_in_by_a_link_and_chooses_a_password(console: Console) -> None:
    users, admin = console.stage.services.users, console.stage.principal("admin")
    await users.create(name="olga", roles=["operator"], actors=[], by=admin)
    link = (await users.link("olga", by=admin))["path"]
    page = await console.opens(link, None)
    await page.wait_for_url("**/account")
    await page.get_by_label("New password").fill("a long and winding road")
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Present password")).to_be_visible()

    again = await console.opens("/rollouts/read", None)
    await expect(again.get_by_role("heading", name="Sign in")).to_be_visible()
    await again.get_by_label("Name").fill("olga")
    await again.get_by_label("Password", exact=True).fill("a long and winding road")
    await again.keyboard.press("Enter")
    await again.wait_for_url("**/rollouts/read")

    console.expects(403)
    used = await console.opens(link, None)
    await expect(used.get_by_role("alert").first).to_contain_text("was used")


async def test_a_promotion_with_its_gate_unmet_is_refused_and_the_page_says_why(console: Console) -> None:
    console.expects(409)
    await console.stage.decide("write")
    page = await console.opens("/rollouts/write", "operator")
    await page.keyboard.press("p")
    dialog = page.get_by_role("dialog", name="Promote write to advisory")
    await expect(dialog).to_contain_text("conditions do not hold")
    await dialog.get_by_label("Reason").fill("impatience")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_role("alert")).to_contain_text(re.compile("soak|observed|agreement"))
    assert console.stage.state("write").phase is Phase.SHADOW


async def test_a_rollback_takes_two_actions(console: Console) -> None:
    await console.stage.enter("read", Phase.ENFORCED)
    page = await console.opens("/rollouts/read", "operator")
    await page.keyboard.press("r")
    await expect(page.get_by_role("dialog", name="Roll back read")).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Rolled back by hand").first).to_be_visible()
    assert console.stage.state("read").phase is Phase.ADVISORY


async def test_an_automatic_rollback_arrives_on_the_open_board(console: Console) -> None:
    stage = console.stage
    await stage.enter("read", Phase.ENFORCED)
    await stage.looks()
    page = await console.opens("/", "operator")
    row = page.get_by_role("row", name=re.compile("^read"))
    await expect(row).to_contain_text("enforced")
    await row.get_by_role("link", name="read", exact=True).focus()
    for number in range(15):
        await stage.decide("read", actor=f"actor-{number}", model="malformed")
    [rollback] = await stage.looks(times=3, every_s=5)
    assert rollback["automatic"]
    await expect(row).to_contain_text("rolled back")
    await expect(row).to_contain_text("advisory")
    await expect(row.get_by_role("link", name="read", exact=True)).to_be_focused()


async def test_a_decision_is_found_by_its_actor_and_tells_its_story(console: Console) -> None:
    stage = console.stage
    await stage.enter("read", Phase.ENFORCED)
    for actor in ("ann", "bob", "cid"):
        await stage.decide("read", actor=actor, legacy="deny", model="allow")
    await stage.observed(n=3)
    page = await console.opens("/decisions", "auditor")
    await page.keyboard.press("/")
    await page.keyboard.type("bob")
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile("actor=bob"))
    rows = page.get_by_role("table").get_by_role("row").filter(has_text="bob")
    await expect(rows).to_have_count(1)
    await expect(page.get_by_role("table").get_by_role("row").filter(has_text="ann")).to_have_count(0)
    await rows.get_by_role("link").first.press("Enter")
    await page.wait_for_url(re.compile("/decisions/[0-9a-f]+"))
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await expect(page.get_by_role("main")).to_contain_text("bob")


async def test_the_kill_switch_needs_its_word(console: Console) -> None:
    page = await console.opens("/", "operator")
    await tab_to(page, "Kill switch…")
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Stop the model everywhere")
    word, reason = dialog.get_by_label(re.compile("to confirm")), dialog.get_by_label("Reason")
    await word.fill("yes")
    await reason.fill("it lies")
    await dialog.get_by_role("button", name="Engage").press("Enter")
    await expect(dialog).to_be_visible()
    assert console.stage.services.plane.view.kill_switch is False
    await word.fill("stop")
    await word.press("Enter")
    await expect(page.get_by_text("The kill switch is engaged").first).to_be_visible()
    assert console.stage.services.plane.view.kill_switch is True


async def test_news_leave_an_open_dialog_and_what_is_typed_in_it_alone(console: Console) -> None:
    stage = console.stage
    await stage.enter("read", Phase.ENFORCED)
    page = await console.opens("/rollouts/read", "operator")
    await page.keyboard.press("h")
    reason = page.get_by_role("dialog").get_by_label("Reason")
    await reason.fill("half a sentence")
    async with page.expect_response(re.compile("/rollouts/read$")):
        await stage.services.levers.roll_back("read", reason="seen elsewhere", by=stage.principal("approver"))
    await expect(page.get_by_text("Seen elsewhere").first).to_be_attached()
    await expect(reason).to_have_value("half a sentence")
    await expect(reason).to_be_focused()


async def test_the_queue_shows_by_when_a_waiting_caller_needs_an_answer(console: Console) -> None:
    stage = console.stage
    await stage.enter("write", Phase.ADVISORY)
    await stage.decide("write", legacy="require_attestation", model="deny")
    await stage.until(lambda: stage.rows(t.reviews) == 1)
    page = await console.opens("/reviews", "reviewer")
    await expect(page.get_by_role("main")).to_contain_text(re.compile("caller|waits|waiting"))
    await expect(page.get_by_role("main")).to_contain_text(re.compile(r"1[0-5]:\d\d|1[0-5] min"))


async def test_a_page_whose_server_is_gone_says_from_when_it_is_until_it_is_back(console: Console) -> None:
    page = await console.opens("/", "operator")
    lost = page.get_by_role("status").filter(has_text="Connection lost")
    await page.wait_for_function("() => feed.readyState === EventSource.OPEN")
    await expect(lost).to_have_count(0)
    await page.route("**/live", lambda route: route.abort())
    await page.evaluate("() => { feed.close(); listen(); }")  # a line that is open is not routed again
    await expect(lost).to_contain_text(re.compile(r"from \d\d:\d\d:\d\d UTC"))
    await page.unroute("**/live")
    await expect(lost).to_have_count(0)


@pytest.mark.parametrize("keys", ["?", "Shift+?"])
async def test_the_help_opens_by_its_character_whatever_the_keyboard(console: Console, keys: str) -> None:
    page = await console.opens("/", "operator")
    await page.keyboard.press(keys)
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
