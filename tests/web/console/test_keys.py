"""Do keys and users begin and end on their page, and is a secret shown once?"""

import re
from html import unescape
from typing import Any

import httpx
import pytest

from tests.services.plane import Stage
from tests.web.console.browsing import signed_in

CI: dict[str, Any] = {"name": "ci", "roles": ["caller", "operator"], "actors": "bot-1\nbot-2\n"}


async def pull(stage: Stage, path: str, *, who: str = "admin", **fields: Any) -> httpx.Response:
    return await stage.call("POST", path, who=who, data=fields, headers={"HX-Request": "true"})


async def seen(stage: Stage, path: str = "/keys") -> str:
    return unescape((await stage.call("GET", path)).text)


def shown(response: httpx.Response) -> str:
    """What the dialog shows this once."""
    assert response.status_code == 200, response.text
    found = re.search(r"<output data-copied>([^<]+)</output>", response.text)
    assert found, response.text
    return unescape(found[1])


def only_key(stage: Stage, name: str) -> dict[str, Any]:
    known = stage.services.administration.keys()
    (found,) = [key for key in known if key["name"] == name]
    return found


def only_user(stage: Stage, name: str) -> dict[str, Any]:
    (found,) = [user for user in stage.services.users.all() if user["name"] == name]
    return found


async def test_a_new_key_is_shown_once_and_works(stage: Stage) -> None:
    response = await pull(stage, "/keys", **CI)
    key = shown(response)
    assert "You will not see it again" in response.text
    made = only_key(stage, "ci")
    assert (made["roles"], made["actors"]) == (["caller", "operator"], ["bot-1", "bot-2"])
    headers = {"Authorization": f"Bearer {key}"}
    assert (await stage.client.get("/v1/webhooks", headers=headers)).status_code == 200
    assert key not in await seen(stage)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "ci"}, "must name at least one of"),
        ({"name": "ci", "roles": "king"}, "'king' is none of"),
        ({"name": "ci", "roles": "caller", "expires_at": "2020-01-01T00:00"}, "must lie in the future"),
        ({"name": "ci", "roles": "caller", "expires_at": "9999-12-31T23:59-14:00"}, "must be a time"),
    ],
)
async def test_a_key_that_cannot_be_is_refused_with_the_reason(
    stage: Stage, fields: dict[str, str], said: str
) -> None:
    response = await pull(stage, "/keys", **fields)
    assert response.status_code == 422
    assert said in unescape(response.text)


async def test_a_key_ends_only_where_its_name_is_typed(stage: Stage) -> None:
    await pull(stage, "/keys", **CI)
    path = f"/keys/{only_key(stage, 'ci')['id']}/revoke"
    assert (await pull(stage, path, typed="another")).status_code == 422
    assert only_key(stage, "ci")["revoked_at"] is None
    assert (await pull(stage, path, typed="ci")).headers["HX-Redirect"] == "/keys"
    assert only_key(stage, "ci")["revoked_at"] is not None
    assert "1 ended" in await seen(stage)


async def test_a_name_that_hides_something_is_typed_as_the_page_shows_it(stage: Stage) -> None:
    hidden = "ci\u202e"
    await pull(stage, "/keys", **{**CI, "name": hidden})
    path = f"/keys/{only_key(stage, hidden)['id']}/revoke"
    assert (await pull(stage, path, typed="ci[U+202E]")).headers["HX-Redirect"] == "/keys"


async def test_a_key_that_nobody_holds_is_not_found(stage: Stage) -> None:
    assert (await pull(stage, "/keys/none/revoke", typed="none")).status_code == 404


async def test_a_new_user_comes_in_by_the_link_that_is_shown_once(stage: Stage) -> None:
    link = shown(await pull(stage, "/users", name="ada", roles="reviewer", actors="ada"))
    assert link.startswith("http://plane/sign-in/")
    assert (await stage.client.get(link)).status_code == 200
    assert link.rpartition("/")[2] not in await seen(stage)
    assert only_user(stage, "ada")["roles"] == ["reviewer"]


async def test_a_link_leads_where_the_browser_sees_the_server(stage: Stage) -> None:
    browser = await signed_in(stage, "admin")
    headers = {**await browser.headers("/keys"), "Origin": "https://plane"}
    data = {"name": "ada", "roles": "reviewer"}
    made = await browser.client.post("/users", data=data, headers=headers)
    assert shown(made).startswith("https://plane/sign-in/"), "behind what speaks https for us"


async def test_a_user_gets_another_link(stage: Stage) -> None:
    first = shown(await pull(stage, "/users", name="ada", roles="reviewer"))
    second = shown(await pull(stage, f"/users/{only_user(stage, 'ada')['id']}/link"))
    assert second != first


async def test_a_user_s_roles_and_actors_are_changed(stage: Stage) -> None:
    await pull(stage, "/users", name="ada", roles="reviewer", actors="ada")
    path = f"/users/{only_user(stage, 'ada')['id']}"
    await pull(stage, path, roles=["auditor", "reviewer"], actors="ada\nada.l")
    changed = only_user(stage, "ada")
    assert (changed["roles"], changed["actors"]) == (["auditor", "reviewer"], ["ada", "ada.l"])
    assert (await pull(stage, path, actors="ada")).status_code == 422, "a user without a role"
    assert only_user(stage, "ada") == changed, "both or neither"


async def test_a_user_is_disabled_by_a_typed_name_and_enabled_again(stage: Stage) -> None:
    await pull(stage, "/users", name="ada", roles="reviewer")
    path = f"/users/{only_user(stage, 'ada')['id']}"
    assert (await pull(stage, f"{path}/disable", typed="eve")).status_code == 422
    await pull(stage, f"{path}/disable", typed="ada")
    assert only_user(stage, "ada")["disabled_at"] is not None
    assert "/enable" in await seen(stage)
    await pull(stage, f"{path}/enable")
    assert only_user(stage, "ada")["disabled_at"] is None


async def test_the_page_says_who_made_a_key_by_name(stage: Stage) -> None:
    await pull(stage, "/keys", **CI)
    assert f'<a href="/audit?who={stage.principal("admin").key_id}">admin</a>' in await seen(stage)
    assert "No users yet" in await seen(stage)
