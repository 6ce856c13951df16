"""What does a person meet on their way in, on their own page, and on their way out?"""

import re
from datetime import timedelta

import httpx
import pytest

from app.web.console.sign_in import own
from tests.services.plane import Stage
from tests.web.console.browsing import ORIGIN, Browser, invited, signed_in, token_of

PASSWORD = "correct horse battery"


async def joined(stage: Stage, name: str = "ada") -> Browser:
    """Somebody who came by a link and has chosen a password."""
    browser = Browser(stage)
    await browser.send(await invited(stage, name))
    saved = await browser.pull("/account/password", new=PASSWORD)
    assert saved.headers["HX-Redirect"] == "/account"
    return browser


async def test_a_link_leads_to_a_page_that_asks_for_a_password(stage: Stage) -> None:
    browser = Browser(stage)
    entered = await browser.send(await invited(stage))
    assert (entered.status_code, entered.headers["Location"]) == (303, "/account")
    page = (await browser.see("/account")).text
    assert "Choose a password" in page
    assert 'id="old"' not in page


async def test_a_link_of_who_has_a_password_leads_to_a_new_one_first(stage: Stage) -> None:
    await joined(stage)
    path = (await stage.services.users.link("ada", by=stage.principal("admin")))["path"]
    browser = Browser(stage)
    entered = await browser.send(path)
    assert (entered.status_code, entered.headers["Location"]) == (303, "/account")
    page = (await browser.see("/account")).text
    assert page.index("Choose a new password") < page.index("<dt>Name</dt>")
    assert 'id="old"' not in page


async def test_who_only_looks_at_a_link_uses_nothing_up(stage: Stage) -> None:
    path = await invited(stage)
    for _ in range(3):
        looked = await Browser(stage).see(path)
        assert looked.status_code == 200
        assert "sign_in.js" in looked.text
    assert (await Browser(stage).send(path)).status_code == 303


async def test_a_spent_link_says_how_to_get_another(stage: Stage) -> None:
    path = await invited(stage)
    await Browser(stage).send(path)
    again = await Browser(stage).send(path)
    assert again.status_code == 403
    assert "phasegate users link" in again.text


async def test_a_name_and_a_password_open_the_page_that_was_wanted(stage: Stage) -> None:
    await joined(stage)
    browser = Browser(stage)
    sent = await browser.see("/account")
    assert sent.headers["Location"] == "/sign-in?next=/account"
    entered = await browser.send("/sign-in", name="ada", password=PASSWORD, next="/account")
    assert (entered.status_code, entered.headers["Location"]) == (303, "/account")
    assert "ada" in (await browser.see("/account")).text
    assert (await browser.see("/sign-in?next=/account")).headers["Location"] == "/account"


async def test_a_wrong_password_is_said_in_the_form_which_keeps_the_name(stage: Stage) -> None:
    await joined(stage)
    refused = await Browser(stage).send("/sign-in", name="ada", password="wrong password")
    assert refused.status_code == 403
    assert 'role="alert"' in refused.text
    assert 'value="ada"' in refused.text
    assert "wrong password" not in refused.text


async def test_a_form_from_elsewhere_signs_nobody_in(stage: Stage) -> None:
    key = stage.keys["admin"][1]
    browser = Browser(stage)
    form = token_of((await browser.see("/sign-in")).text)
    for headers in ({"Origin": "http://elsewhere"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {}):
        refused = await browser.client.post("/sign-in", data={"form": form, "key": key}, headers=headers)
        assert refused.status_code == 403, headers
    for forged in ("", "guess"):
        data = {"form": forged, "key": key}
        refused = await browser.client.post("/sign-in", data=data, headers={"Origin": ORIGIN})
        assert refused.status_code == 403, forged
    assert not await browser.is_in()
    data = {"form": form, "key": key}
    await browser.client.post("/sign-in", data=data, headers={"Sec-Fetch-Site": "same-origin"})
    assert await browser.is_in()


@pytest.mark.parametrize(
    "address",
    ["//evil", "/\\evil", "https://evil", "javascript:alert(1)", "evil", "", "/\nevil", "/\t/evil", "/日本"],
)
def test_nobody_is_led_to_another_site(address: str) -> None:
    assert own(address) == "/"


async def test_an_origin_that_is_none_is_another_site(stage: Stage) -> None:
    browser = await signed_in(stage, "admin")
    headers = await browser.headers()
    for origin in ("http://[", "plane", "http://plane.evil", "http://plane@evil", "//plane/", ""):
        refused = await browser.client.post("/sign-out", headers=headers | {"Origin": origin})
        assert refused.status_code == 403, origin
    assert await browser.is_in()


async def test_a_link_makes_nobody_who_is_signed_in_somebody_else_by_itself(stage: Stage) -> None:
    path, browser = await invited(stage), await signed_in(stage, "auditor")
    page = (await browser.see(path)).text
    assert "sign_in.js" not in page
    assert "data-sends-itself" not in page
    assert "in place of auditor" in page
    assert (await browser.send(path)).status_code == 303
    assert "ada" in (await browser.see("/account")).text


async def test_a_card_that_is_left_open_keeps_nobody_signed_in(stage: Stage) -> None:
    browser = await signed_in(stage, "reviewer")
    headers = await browser.headers()
    for _ in range(9):
        stage.clock.passes(minutes=55)
        answer = await browser.client.post("/reviews/renew", data={"review": "none"}, headers=headers)
    assert answer.headers["HX-Redirect"].startswith("/sign-in")


def cookies(response: httpx.Response) -> dict[str, str]:
    return {each.partition("=")[0]: each for each in response.headers.get_list("set-cookie")}


async def test_the_cookie_is_for_this_site_alone_and_for_https_where_the_browser_speaks_it(
    stage: Stage,
) -> None:
    key = stage.keys["admin"][1]
    plain = cookies(await Browser(stage).send("/sign-in", key=key))["phasegate_session"].lower()
    assert "httponly" in plain
    assert "samesite=lax" in plain
    assert "path=/" in plain
    assert "secure" not in plain
    browser = Browser(stage)
    form = token_of((await browser.see("/sign-in")).text)
    entered = await browser.client.post(
        "/sign-in", data={"form": form, "key": key}, headers={"Origin": ORIGIN.replace("http:", "https:")}
    )
    assert "secure" in cookies(entered)["__Host-phasegate_session"].lower()


async def test_a_session_opens_the_api_and_a_key_in_the_header_goes_first(stage: Stage) -> None:
    browser = await signed_in(stage, "admin")
    assert (await browser.client.get("/v1/keys")).status_code == 200
    as_caller = {"Authorization": f"Bearer {stage.keys['caller'][1]}"}
    assert (await browser.client.get("/v1/keys", headers=as_caller)).status_code == 403
    assert (await browser.client.get("/v1/keys", headers={"Authorization": "Bearer no"})).status_code == 401


async def test_a_browser_without_a_session_costs_the_database_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(type(stage.services.sign_in), "_session", never)
    browser = Browser(stage)
    browser.client.cookies.set("theme", "dark")
    assert (await browser.see("/account")).status_code == 303
    headers = {"Authorization": f"Bearer {stage.keys['admin'][1]}", "Cookie": "phasegate_session=x"}
    assert (await browser.client.get("/v1/keys", headers=headers)).status_code == 200
    assert (
        await browser.client.get("/static/console.css", headers={"Cookie": "phasegate_session=x"})
    ).is_success


async def test_signing_out_forgets_the_session_on_both_sides(stage: Stage) -> None:
    browser = await signed_in(stage, "reviewer")
    kept = dict(browser.client.cookies)
    out = await browser.pull("/sign-out")
    assert out.headers["HX-Redirect"] == "/sign-in"
    assert "phasegate_session" not in dict(browser.client.cookies)
    browser.client.cookies.update(kept)
    assert not await browser.is_in()


async def test_the_account_shows_roles_actors_and_sessions(stage: Stage) -> None:
    browser, other = await joined(stage), Browser(stage)
    await other.send("/sign-in", name="ada", password=PASSWORD)
    added = await browser.pull("/account/actors", actor="ada@\u202ehere")
    assert added.headers["HX-Redirect"] == "/account"
    page = (await browser.see("/account")).text
    assert "reviewer" in page
    assert "ada@[U+202E]here" in page
    assert page.count("this browser") == 1
    assert page.count("<td>another</td>") == 1
    await browser.pull("/account/sessions/end")
    assert (await browser.is_in(), await other.is_in()) == (True, False)


async def test_a_new_password_takes_the_old_one_and_ends_the_other_sessions(stage: Stage) -> None:
    browser, other = await joined(stage), Browser(stage)
    await other.send("/sign-in", name="ada", password=PASSWORD)
    refused = await browser.pull("/account/password", old="wrong", new="another passphrase")
    assert refused.status_code == 422
    assert "Present password: is wrong" in refused.text
    saved = await browser.pull("/account/password", old=PASSWORD, new="another passphrase")
    assert saved.status_code == 200
    assert (await browser.is_in(), await other.is_in()) == (True, False)


async def test_a_key_has_no_password_to_change(stage: Stage) -> None:
    browser = await signed_in(stage, "reviewer")
    assert "password-title" not in (await browser.see("/account")).text
    assert (await browser.pull("/account/password", new=PASSWORD)).status_code == 404
    by_header = await stage.call("GET", "/account")
    assert "you came with a key" in by_header.text


async def test_a_session_that_has_run_out_leads_to_the_sign_in_page(stage: Stage) -> None:
    browser = await signed_in(stage, "reviewer")
    stage.clock.passes(hours=8)
    assert (await browser.see("/account")).headers["Location"].startswith("/sign-in")


async def test_a_user_is_made_changed_and_ended_over_http(any_stage: Stage) -> None:
    made = (await any_stage.call("POST", "/v1/users", {"name": "ada", "roles": ["reviewer"]})).json()
    assert (made["name"], made["roles"], made["actors"], made["ways"]) == ("ada", ["reviewer"], [], [])
    link = (await any_stage.call("POST", "/v1/users/ada/link")).json()
    expires = any_stage.clock.now() + timedelta(hours=1)
    assert link["expires_at"].startswith(f"{expires:%Y-%m-%dT%H:%M}")
    browser = Browser(any_stage)
    await browser.send(link["path"])
    assert await browser.is_in()
    actors = await any_stage.call("POST", f"/v1/users/{made['id']}/actors", {"actors": ["ada@here"]})
    assert actors.json()["actors"] == ["ada@here"]
    assert await browser.is_in()
    roles = await any_stage.call("POST", "/v1/users/ada/roles", {"roles": ["auditor"]})
    assert roles.json()["roles"] == ["auditor"]
    assert not await browser.is_in()
    assert (await any_stage.call("POST", "/v1/users/ada/disable")).json()["disabled_at"] is not None
    assert (await any_stage.call("POST", "/v1/users/ada/link")).json()["type"] == "user-disabled"
    assert (await any_stage.call("POST", "/v1/users/ada/enable")).json()["disabled_at"] is None
    listed = await any_stage.call("GET", "/v1/users")
    assert [each["name"] for each in listed.json()["users"]] == ["ada"]
    assert not re.search("argon2|password_hash|[0-9a-f]{64}", listed.text)
