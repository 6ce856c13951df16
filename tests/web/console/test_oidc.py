"""Does a person come in by an OpenID provider that is really one, and by nothing less?"""

import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey

from app.errors import SettingsError
from app.services.id_token import verified
from app.services.oidc import Provider, provider_of
from app.settings import load_settings
from app.store.database import Database
from tests.services.plane import Stage, opened
from tests.web.console.browsing import ORIGIN, Browser, token_of

ISSUER = "https://id.example"


@dataclass
class Identity:
    """An OpenID provider: the person is signed in there already, and says yes."""

    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "one", "alg": "ES256"}))
    claims: dict[str, Any] = field(default_factory=dict)  # in place of the true ones
    signs_with: Any = None
    algorithm: str = "ES256"
    secrets: list[str] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def authorize(self, address: str) -> str:
        """Where the browser is sent back to."""
        asked = dict(parse_qsl(urlsplit(address).query))
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        code = f"code-{len(self.secrets)}"
        self._codes[code] = asked
        return f"{asked['redirect_uri']}?code={code}&state={asked['state']}"

    def answer(self, request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/.well-known/openid-configuration":
                endpoints = {
                    name: f"{ISSUER}/{name}" for name in ("authorization_endpoint", "token_endpoint")
                }
                return httpx.Response(200, json={"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks", **endpoints})
            case "/jwks":
                return httpx.Response(200, json=KeySet([self.key]).as_dict(private=False))
            case "/token_endpoint":
                return self._token(request)
            case _:
                return httpx.Response(404)

    def _token(self, request: httpx.Request) -> httpx.Response:
        sent = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        self.secrets.append(request.headers.get("authorization", ""))
        asked = self._codes.pop(sent["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(sent["code_verifier"].encode()).digest())
        if asked is None or challenge.rstrip(b"=").decode() != asked["code_challenge"]:
            return httpx.Response(400, json={"error": "invalid_grant"})
        assert sent["redirect_uri"] == asked["redirect_uri"]
        now = int(time.time())
        true = {"iss": ISSUER, "sub": "7", "aud": "phasegate", "iat": now, "exp": now + 60}
        claims = {**true, "nonce": asked["nonce"], "preferred_username": "ada", "groups": ["reviewers"]}
        header = {"alg": self.algorithm, "kid": "one"}
        if self.algorithm == "none":
            parts = (json.dumps(part).encode() for part in (header, claims))
            token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."
        else:
            key = self.signs_with or self.key
            token = jwt.encode(header, {**claims, **self.claims}, key, [self.algorithm])
        return httpx.Response(200, json={"access_token": "x", "token_type": "Bearer", "id_token": token})


@pytest.fixture
def identity() -> Identity:
    return Identity()


@pytest.fixture
async def at_provider(sqlite_database: Database, tmp_path: Path, identity: Identity) -> AsyncIterator[Stage]:
    async with opened(sqlite_database, tmp_path) as stage:
        stage.services.oidc = Provider(
            ISSUER,
            client_id="phasegate",
            client_secret="s/cret",
            roles={"groups": {"reviewers": "reviewer", "platform": "operator"}},
            verify=verified,
            transport=httpx.MockTransport(identity.answer),
        )
        yield stage


async def leaves(browser: Browser) -> str:
    """The address of the provider that the browser is sent to."""
    page = (await browser.see("/sign-in?next=/account")).text
    assert "Sign in with your organisation" in page
    data = {"form": token_of(page), "next": "/account"}
    sent = await browser.client.post("/oidc/start", data=data, headers={"Origin": ORIGIN})
    assert sent.status_code == 200, sent.text
    address = sent.text.split('content="0; url=')[1].split('"')[0].replace("&amp;", "&")
    assert address.startswith(f"{ISSUER}/authorization_endpoint?")
    return address


async def comes_back(stage: Stage, identity: Identity) -> tuple[Browser, httpx.Response]:
    browser = Browser(stage)
    return browser, await browser.see(identity.authorize(await leaves(browser)))


async def test_whom_the_provider_vouches_for_is_a_user_with_the_roles_of_the_claim(
    at_provider: Stage, identity: Identity
) -> None:
    browser, back = await comes_back(at_provider, identity)
    assert (back.status_code, back.headers["Location"]) == (303, "/account")
    assert await browser.is_in()
    [user] = at_provider.services.users.all()
    assert (user["name"], user["roles"], user["ways"]) == ("ada", ["reviewer"], ["oidc"])
    assert base64.b64decode(identity.secrets[0].removeprefix("Basic ")) == b"phasegate:s%2Fcret"


async def test_the_same_subject_is_the_same_user_and_new_roles_end_the_old_sessions(
    at_provider: Stage, identity: Identity
) -> None:
    first, _ = await comes_back(at_provider, identity)
    identity.claims = {"preferred_username": "ada lovelace"}
    await comes_back(at_provider, identity)
    assert await first.is_in()
    identity.claims = {"groups": ["platform", "others"]}
    await comes_back(at_provider, identity)
    assert not await first.is_in()
    [user] = at_provider.services.users.all()
    assert (user["name"], user["roles"]) == ("ada", ["operator"])


async def test_another_subject_of_the_same_name_is_another_user(
    at_provider: Stage, identity: Identity
) -> None:
    await comes_back(at_provider, identity)
    identity.claims = {"sub": "8"}
    await comes_back(at_provider, identity)
    first, second = at_provider.services.users.all()
    assert first["name"] == "ada"
    assert second["name"].startswith("ada ")


async def test_who_holds_no_role_is_told_so(at_provider: Stage, identity: Identity) -> None:
    identity.claims = {"groups": "visitors"}
    browser, back = await comes_back(at_provider, identity)
    assert back.status_code == 403
    assert "gives you a role" in back.text
    assert not await browser.is_in()


async def test_a_disabled_user_stays_out(at_provider: Stage, identity: Identity) -> None:
    await comes_back(at_provider, identity)
    await at_provider.services.users.disable("ada", by=at_provider.principal("admin"))
    browser, back = await comes_back(at_provider, identity)
    assert (back.status_code, await browser.is_in()) == (403, False)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"aud": "another"},
        {"aud": ["phasegate", "another"]},
        {"exp": int(time.time()) - 3_600},
        {"nonce": "another sign-in's"},
        {"nonce": None},
        {"sub": None},
    ],
    ids=str,
)
async def test_a_token_that_does_not_hold_opens_nothing(
    at_provider: Stage, identity: Identity, claims: dict[str, Any]
) -> None:
    identity.claims = claims
    browser, back = await comes_back(at_provider, identity)
    assert (back.status_code, await browser.is_in()) == (403, False)


@pytest.mark.parametrize("forgery", ["another key", "a secret", "none"])
async def test_a_token_that_the_provider_did_not_sign_opens_nothing(
    at_provider: Stage, identity: Identity, forgery: str
) -> None:
    if forgery == "another key":
        identity.signs_with = ECKey.generate_key("P-256", {"kid": "one"})
    elif forgery == "a secret":
        identity.signs_with = OctKey.import_key("what anybody may guess of a key")
        identity.algorithm = "HS256"
    else:
        identity.algorithm = "none"
    browser, back = await comes_back(at_provider, identity)
    assert (back.status_code, await browser.is_in()) == (403, False)


async def test_what_began_in_another_browser_ends_there(at_provider: Stage, identity: Identity) -> None:
    victim, attacker = Browser(at_provider), Browser(at_provider)
    address = identity.authorize(await leaves(attacker))
    assert (await victim.see(address)).status_code == 403
    await leaves(victim)
    assert (await victim.see(address)).status_code == 403
    assert not await victim.is_in()


async def test_a_provider_that_says_no_or_is_away_leads_to_a_page_that_says_so(
    at_provider: Stage, identity: Identity
) -> None:
    browser = Browser(at_provider)
    state = dict(parse_qsl(urlsplit(await leaves(browser)).query))["state"]
    refused = await browser.see(f"/oidc/back?error=access_denied&state={state}")
    assert refused.status_code == 403
    assert "access_denied" in refused.text
    used = identity.authorize(await leaves(browser))
    assert (await browser.see(used)).status_code == 303
    other = Browser(at_provider)
    again = identity.authorize(await leaves(other)).replace("code=code-1", "code=code-0")
    assert "could not say who you are" in (await other.see(again)).text


async def test_a_name_that_looks_like_an_id_is_taken_for_nobody_elses(
    at_provider: Stage, identity: Identity
) -> None:
    by, use = at_provider.principal("admin"), at_provider.services.users
    victim = await use.create(name="victim", roles=["reviewer"], actors=[], by=by)
    identity.claims = {"preferred_username": victim["id"]}
    browser, _ = await comes_back(at_provider, identity)
    assert await browser.is_in()
    changed = await use.change_roles(victim["id"], roles=["admin"], by=by)
    assert changed["name"] == "victim"
    assert {each["name"] for each in use.all() if "admin" in each["roles"]} == {"victim"}


async def test_who_comes_by_the_provider_leaves_with_it(at_provider: Stage, identity: Identity) -> None:
    """A password of their own would let them in after the provider does not."""
    browser, _ = await comes_back(at_provider, identity)
    page = (await browser.see("/account")).text
    assert "password-title" not in page
    assert 'hx-post="/account/actors"' in page
    refused = await browser.pull("/account/password", new="correct horse battery")
    assert refused.status_code == 403
    assert "no password here" in refused.text


async def test_nobody_comes_back_to_another_site(at_provider: Stage, identity: Identity) -> None:
    browser = Browser(at_provider)
    back = identity.authorize(await leaves(browser))
    kept = json.loads(bytes.fromhex(browser.client.cookies["phasegate_oidc"]))
    browser.client.cookies.clear()
    forged = json.dumps({**kept, "next": "https://evil"}).encode().hex()
    browser.client.cookies.set("phasegate_oidc", forged)
    assert (await browser.see(back)).headers["Location"] == "/"


async def test_without_a_provider_there_is_no_button_and_no_way(stage: Stage) -> None:
    browser = Browser(stage)
    assert "organisation" not in (await browser.see("/sign-in")).text
    assert (await browser.see("/oidc/back?code=1&state=2")).status_code == 404


def test_the_settings_of_a_provider_name_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {
        "PHASEGATE_OIDC_ISSUER": ISSUER,
        "PHASEGATE_OIDC_CLIENT_ID": "phasegate",
        "PHASEGATE_OIDC_ROLES": "groups:reviewers=reviewer,platform=operator;sub:7=admin",
    }
    settings = load_settings(whole)
    groups = {"reviewers": "reviewer", "platform": "operator"}
    assert settings.oidc_roles == {"groups": groups, "sub": {"7": "admin"}}
    assert provider_of(settings) is not None
    assert provider_of(load_settings({})) is None
    for name in ("PHASEGATE_OIDC_CLIENT_ID", "PHASEGATE_OIDC_ROLES"):
        with pytest.raises(SettingsError, match=name):
            load_settings({key: value for key, value in whole.items() if key != name})
    for wrong in ("groups", "groups:a=king", "groups:a", ":a=admin"):
        with pytest.raises(SettingsError, match="PHASEGATE_OIDC_ROLES"):
            load_settings(whole | {"PHASEGATE_OIDC_ROLES": wrong})

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name="joserfc")

    monkeypatch.setattr("app.services.oidc.importlib.import_module", missing)
    with pytest.raises(SettingsError, match=r"pip install 'phasegate\[oidc\]'"):
        provider_of(settings)
