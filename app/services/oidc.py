"""Whom does an OpenID provider vouch for, and which roles does that give?"""

import base64
import hashlib
import importlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import msgspec

from app.domain.role import Role
from app.errors import Forbidden, SettingsError
from app.settings import Settings

BACK = "/oidc/back"
_WITHIN_S = 10.0
_NAME_LENGTH = 72

# Claims of an id_token that holds: (token, jwks, issuer, client id, nonce); ValueError says why it does not.
Verify = Callable[[str, Any, str, str, str], Mapping[str, Any]]


class Asking(msgspec.Struct, frozen=True):
    """What the browser keeps from being sent away until it is back. `base` is where it sees us."""

    state: str
    nonce: str
    verifier: str
    base: str
    next: str


@dataclass(frozen=True, slots=True)
class Vouched:
    subject: str
    name: str
    roles: frozenset[Role]


class Provider:
    """The authorization code flow with PKCE (OpenID Connect Core 1.0, section 3.1; RFC 7636).

    `roles` is {claim: {value: role}}. Whatever the provider says wrong is `Forbidden` (`oidc-failed`).
    """

    def __init__(
        self,
        issuer: str,
        *,
        client_id: str,
        client_secret: str | None,
        roles: Mapping[str, Mapping[str, str]],
        verify: Verify,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._issuer, self._client_id, self._client_secret = issuer, client_id, client_secret
        self._roles, self._verify, self._transport = roles, verify, transport

    async def begin(self, *, base: str, wanted: str) -> tuple[str, Asking]:
        """Where to send the browser, and what it keeps meanwhile."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._client_id,
                "redirect_uri": base + BACK,
                "scope": "openid profile email",
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        async with self._client() as client:
            endpoint = str((await self._metadata(client))["authorization_endpoint"])
        address = f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"
        return address, Asking(state, nonce, verifier, base, wanted)

    async def finish(self, asking: Asking, *, code: str) -> Vouched:
        """Who came back with this code; the caller has compared the state."""
        try:
            async with self._client() as client:
                metadata = await self._metadata(client)
                issuer, token = metadata["issuer"], await self._redeem(client, metadata, asking, code)
                keys = _json(await client.get(metadata["jwks_uri"]))
            claims = self._verify(token, keys, issuer, self._client_id, asking.nonce)
        except (httpx.HTTPError, KeyError, ValueError) as error:
            raise _failed(error) from error
        return self._vouched(f"{issuer} {claims['sub']}", claims)

    def _vouched(self, subject: str, claims: Mapping[str, Any]) -> Vouched:
        roles = {
            Role(role)
            for claim, given in self._roles.items()
            for value, role in given.items()
            if value in _values(claims.get(claim))
        }
        if not roles:
            claimed = " or ".join(self._roles)
            said = f"your provider knows you, but nothing in {claimed} gives you a role here: ask an admin"
            raise Forbidden("oidc-no-role", said)
        named = next(
            (claims[each] for each in ("preferred_username", "email", "name") if claims.get(each)), ""
        )
        plain = "".join(char for char in str(named).replace("/", "-") if char.isprintable()).strip()
        return Vouched(subject, plain[:_NAME_LENGTH] or "somebody", frozenset(roles))

    async def _metadata(self, client: httpx.AsyncClient) -> dict[str, str]:
        try:
            found = _json(await client.get(f"{self._issuer}/.well-known/openid-configuration"))
            endpoints = {name: str(found[name]) for name in _ENDPOINTS}
        except (httpx.HTTPError, KeyError, ValueError) as error:
            raise _failed(error) from error
        if endpoints["issuer"].rstrip("/") != self._issuer:  # Discovery 1.0, section 4.3
            raise _failed(ValueError(f"it calls itself {endpoints['issuer']}"))
        return endpoints

    async def _redeem(
        self, client: httpx.AsyncClient, metadata: Mapping[str, str], asking: Asking, code: str
    ) -> str:
        body = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": asking.base + BACK,
            "client_id": self._client_id,
            "code_verifier": asking.verifier,
        }
        secret = self._client_secret
        # RFC 6749, section 2.3.1: both are form-encoded before they are put together.
        basic = httpx.Auth() if secret is None else httpx.BasicAuth(_quoted(self._client_id), _quoted(secret))
        return str(_json(await client.post(metadata["token_endpoint"], data=body, auth=basic))["id_token"])

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self._transport, timeout=_WITHIN_S)


def provider_of(settings: Settings) -> Provider | None:
    """The provider that the settings name. Raises `SettingsError` where the extra is not installed."""
    if settings.oidc_issuer is None:
        return None
    try:
        verified = importlib.import_module("app.services.id_token").verified
    except ModuleNotFoundError as error:
        said = f"needs {error.name}: pip install 'phasegate[oidc]'"
        raise SettingsError("PHASEGATE_OIDC_ISSUER", said) from error
    assert settings.oidc_client_id is not None, "checked with the settings"
    return Provider(
        settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret,
        roles=settings.oidc_roles or {},
        verify=verified,
    )


_ENDPOINTS = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _json(response: httpx.Response) -> dict[str, Any]:
    response.raise_for_status()
    found = response.json()
    if not isinstance(found, dict):
        raise ValueError("it answered with something else than an object")  # noqa: TRY004 -- as bad JSON is
    return found


def _values(claim: object) -> list[object]:
    return list(claim) if isinstance(claim, list) else [claim]


def _failed(error: Exception) -> Forbidden:
    return Forbidden("oidc-failed", f"the OpenID provider could not say who you are: {error}")
