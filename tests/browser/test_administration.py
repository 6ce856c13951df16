"""Can keys, approvals, the history and the state of the server be seen to by keyboard alone?"""

from playwright.async_api import expect

from tests.browser.harness import Console


async def test_a_key_is_made_by_keyboard_shown_once_and_revoked_by_its_typed_name(console: Console) -> None:
    page = await console.opens("/keys")
    await page.get_by_role("button", name="New key").press("Enter")
    dialog = page.get_by_role("dialog", name="New API key")
    await expect(dialog.get_by_label("Name")).to_be_focused()
    await page.keyboard.type("deploy bot")
    await dialog.get_by_label("caller").press("Space")
    await dialog.get_by_role("button", name="Create and show the key").press("Enter")
    secret = page.locator("[data-copied]")
    await expect(secret).to_contain_text("pg_")
    key = await secret.inner_text()
    await expect(page.get_by_role("button", name="Copy")).to_be_focused()
    await page.keyboard.press("Escape")
    row = page.get_by_role("row", name="deploy bot")
    await expect(row).to_be_visible()
    assert key not in await page.content()

    await row.get_by_role("button", name="Revoke").press("Enter")
    dialog = page.get_by_role("dialog", name="Revoke the key of deploy bot")
    console.expected = {422}
    await page.keyboard.type("another")
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_role("alert")).to_contain_text("must be the name, deploy bot")
    await dialog.get_by_label("Type deploy bot to confirm").fill("deploy bot")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("1 ended")).to_be_visible()


async def test_a_freeze_is_declared_and_found_in_the_history_by_keyboard(console: Console) -> None:
    page = await console.opens("/approvals", "approver")
    await page.get_by_role("button", name="New freeze").press("Enter")
    dialog = page.get_by_role("dialog", name="New freeze")
    await dialog.get_by_label("Of", exact=True).select_option("read")
    await dialog.get_by_label("From").fill("2027-02-01T08:00")
    await dialog.get_by_label("Until").fill("2027-02-01T18:00")
    await dialog.get_by_label("Reason").fill("a quiet day")
    await dialog.get_by_role("button", name="Declare it").press("Enter")
    await expect(page.get_by_role("row", name="a quiet day")).to_be_visible()

    page = await console.opens("/audit", "auditor")
    await page.keyboard.press("/")
    await page.keyboard.type("approver")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url("/audit?who=approver")
    await expect(page.get_by_role("listitem").filter(has_text="a quiet day")).to_have_count(1)
    await page.get_by_text("Evidence", exact=True).press("Enter")
    await expect(page.get_by_text("2027-02-01 08:00:00")).to_be_visible()
    await page.get_by_role("button", name="Verify the chain").press("Enter")
    await expect(page.get_by_text("The chain holds")).to_be_visible()


async def test_the_status_keeps_up_without_taking_the_focus(console: Console) -> None:
    page = await console.opens("/system", "operator")
    status = page.get_by_role("region", name="Status")
    await expect(status.get_by_role("row", name="Model fake-1")).to_contain_text("Ready")
    await page.get_by_role("button", name="Check this machine").focus()
    console.stage.model.is_ready = False
    await expect(status.get_by_role("row", name="Model fake-1")).to_contain_text("Is down")
    await expect(page.get_by_role("button", name="Check this machine")).to_be_focused()
