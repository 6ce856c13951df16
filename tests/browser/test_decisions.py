"""Does one decision's page keep up with what people and the model say of it?"""

import re

from playwright.async_api import expect

from app.domain.phase import Phase
from tests.browser.harness import Console


async def test_a_waiting_decision_shows_its_verdict_as_it_is_given_and_leaves_the_focus_alone(
    console: Console,
) -> None:
    stage = console.stage
    await stage.enter("admin", Phase.ADVISORY)
    made = (await stage.decide("admin_action", model="deny"))["id"]
    await stage.observed(n=1, rollout="admin")
    page = await console.opens(f"/decisions/{made}", "operator")
    answer, people = (
        page.get_by_role("region", name="Answer"),
        page.get_by_role("region", name="What people said"),
    )
    await expect(answer).to_contain_text("It waits for a person until 2027-01-15 09:15:00 UTC")
    await page.get_by_role("link", name="of alice").focus()
    await stage.judge(made, "allow")
    await expect(answer).to_contain_text("A reviewer then said allow")
    await expect(people.get_by_role("listitem")).to_contain_text("reviewer allow")
    await expect(page.get_by_role("link", name="of alice")).to_be_focused()


async def test_reasons_that_nobody_had_asked_for_appear_by_themselves(console: Console) -> None:
    stage = console.stage
    await stage.enter("write", Phase.ENFORCED)
    made = (await stage.decide("write", model="deny"))["id"]
    page = await console.opens(f"/decisions/{made}", "auditor")
    situation = page.get_by_role("region", name="Situation")
    await expect(situation.get_by_text("carried the answer")).to_be_visible()
    await expect(situation.locator("mark")).to_have_text("deny")
    await expect(page.get_by_text("Finding out")).to_have_count(0)
    await expect(page.get_by_role("region", name="Record").get_by_text("Commit batch")).to_be_visible()


async def test_an_incident_is_reported_by_keyboard(
    console: Console,
) -> None:
    made = (await console.stage.decide())["id"]
    page = await console.opens(f"/decisions/{made}", "operator")
    await page.get_by_role("button", name="Report an incident").press("Enter")
    dialog = page.get_by_role("dialog", name="What should it have been?")
    await dialog.get_by_label("deny").press("Space")
    await dialog.get_by_label("Notes").fill("It was on fire.")
    await dialog.get_by_role("button", name="Report").press("Enter")
    await expect(page.get_by_role("region", name="What people said")).to_contain_text("It was on fire.")
    await expect(page).to_have_url(re.compile(f"{made}$"))
