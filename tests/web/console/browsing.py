"""What does a person's browser do: keep cookies, fill in forms, send its page's token along?"""

import re
from typing import Any

import httpx

from tests.services.plane import Stage

ORIGIN = "http://plane"


class Browser:
    """Signs in by forms, and pulls levers as htmx does."""

    def __init__(self, stage: Stage) -> None:
        transport = httpx.ASGITransport(stage.application, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers={"Accept": "text/html"})

    async def see(self, path: str) -> httpx.Response:
        return await self.client.get(path)

    async def send(self, path: str, **fields: str) -> httpx.Response:
        """A form without script, as the page at `path` gave it out."""
        form = token_of((await self.see(path)).text)
        data = {"form": form, **fields}
        return await self.client.post(path, data=data, headers={"Origin": ORIGIN})

    async def pull(self, path: str, *, page: str = "/account", **fields: str) -> httpx.Response:
        """A lever, as `page` gave it out."""
        return await self.client.post(path, data=fields, headers=await self.headers(page))

    async def headers(self, page: str = "/account") -> dict[str, str]:
        found = re.search(r'"X-CSRF-Token": "([0-9a-f]+)"', (await self.see(page)).text)
        assert found, "the page carries no token"
        return {"Origin": ORIGIN, "HX-Request": "true", "X-CSRF-Token": found[1]}

    async def is_in(self) -> bool:
        return (await self.see("/account")).status_code == 200


async def signed_in(stage: Stage, who: str) -> Browser:
    """The browser of somebody who holds one of the stage's keys."""
    browser = Browser(stage)
    response = await browser.send("/sign-in", key=stage.keys[who][1])
    assert response.status_code == 303, response.text
    return browser


async def invited(stage: Stage, name: str = "ada", *, roles: tuple[str, ...] = ("reviewer",)) -> str:
    """The address of a link that lets a new user in."""
    by = stage.principal("admin")
    await stage.services.users.create(name=name, roles=list(roles), actors=[], by=by)
    made: dict[str, Any] = await stage.services.users.link(name, by=by)
    return str(made["path"])


def token_of(page: str) -> str:
    found = re.search(r'name="form" value="([^"]+)"', page)
    assert found, page
    return found[1]
