"""Whose browser is this, and did our own page send what it sends?"""

import hmac
import secrets
from collections.abc import Mapping
from typing import Any

from litestar import Request, Response
from litestar.datastructures import Cookie
from litestar.types import Scope

from app.errors import Forbidden
from app.services.sign_in import Session, SignIn

COOKIE = "phasegate_session"
_SAFE = ("GET", "HEAD", "OPTIONS")
_UNKEPT = "/static/"  # looks at nobody

# A route's `opt` of that name: its form carries a token of its own, since it may be sent before any session is.
OWN_TOKEN = "own_token"  # noqa: S105 -- the name of an option
# Pages send it by themselves: no sign of a person.
BY_ITSELF = "by_itself"
_FORM_COOKIE = "phasegate_form"


def token_in(scope: Scope) -> str | None:
    """The session token among the cookies; the one that only https can have set comes first."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name == b"cookie":
            for pair in value.split(b";"):
                key, _, said = pair.strip().partition(b"=")
                found.setdefault(key, said)
    token = found.get(f"__Host-{COOKIE}".encode()) or found.get(COOKIE.encode())
    return token.decode("latin-1") if token else None


async def admit(sign_in: SignIn, scope: Scope, token: str) -> None:
    """Put the session's principal into the scope, with its CSRF token for the page.

    Raises `Forbidden` (`csrf`) for what may change something and does not come from a page of ours.
    """
    if scope["path"].startswith(_UNKEPT):
        return
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    is_safe = scope.get("method") in _SAFE
    opt = scope["route_handler"].opt
    is_used = _is_navigation(headers) if is_safe else not opt.get(BY_ITSELF)
    session = await sign_in.session(token, is_used=is_used)
    if session is None:
        return
    csrf = _derived(token)
    if not is_safe and not opt.get(OWN_TOKEN):
        sent = headers.get(b"x-csrf-token", "")
        if not (hmac.compare_digest(sent.encode("latin-1"), csrf.encode()) and is_ours(headers)):
            raise Forbidden(
                "csrf", "this did not come from a page of ours: load the page again, then repeat it"
            )
    scope["auth"] = session.principal
    scope["state"] |= {"csrf": csrf, "session": session}


def session_of(request: Request[Any, Any, Any]) -> Session | None:
    """The session of whoever asks; None for a key in the header."""
    session = getattr(request.state, "session", None)
    return session if isinstance(session, Session) else None


def is_ours(headers: Mapping[bytes, str]) -> bool:
    """Whether the browser says that a page of this host sent it; one that says nothing is not believed."""
    origin = headers.get(b"origin")
    if origin is None:
        return headers.get(b"sec-fetch-site") == "same-origin"
    return origin.partition("://")[2].lower() == headers.get(b"host", "").lower() != ""


def keep(response: Response[bytes], token: str, *, days: int, secure: bool) -> Response[bytes]:
    """Give the browser its session, which no script reads and no other site's form sends."""
    name = f"__Host-{COOKIE}" if secure else COOKIE
    return set_cookie(response, name, token, secure=secure, max_age=days * 86_400)


def let_go(response: Response[bytes]) -> Response[bytes]:
    """The browser forgets its session."""
    for name, secure in ((COOKIE, False), (f"__Host-{COOKIE}", True)):
        set_cookie(response, name, "", secure=secure, max_age=0)
    return response


def is_secure(request: Request[Any, Any, Any]) -> bool:
    """Whether the browser speaks https: with us, or with what stands before us, as its own Origin says."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")


def seen_at(request: Request[Any, Any, Any]) -> str:
    """Where the browser sees us, such as `https://plane.example`: it knows what stands before us."""
    return request.headers.get("origin") or str(request.base_url).rstrip("/")


def form_token(request: Request[Any, Any, Any]) -> str:
    """What a form without a session carries, the same as in a cookie of that browser."""
    return request.cookies.get(_FORM_COOKIE) or secrets.token_urlsafe(32)


def with_form_token(
    response: Response[bytes], request: Request[Any, Any, Any], token: str
) -> Response[bytes]:
    return set_cookie(response, _FORM_COOKIE, token, secure=is_secure(request), max_age=86_400)


def check_form(request: Request[Any, Any, Any], sent: str) -> None:
    """Raises `Forbidden` (`csrf`) where a form is not from a page that this browser got from us."""
    kept = request.cookies.get(_FORM_COOKIE, "")
    headers = {name.encode(): value for name, value in request.headers.items()}
    if not (kept and hmac.compare_digest(kept.encode(), sent.encode()) and is_ours(headers)):
        raise Forbidden("csrf", "this form was not from here, or cookies are off: load the page again")


def set_cookie(
    response: Response[bytes], name: str, value: str, *, secure: bool, max_age: int
) -> Response[bytes]:
    """A cookie that no script reads; `max_age` in seconds, 0 forgets it."""
    response.set_cookie(
        Cookie(key=name, value=value, max_age=max_age, path="/", secure=secure, httponly=True, samesite="lax")
    )
    return response


def _derived(token: str) -> str:
    """The session's CSRF token: whoever reads it in a page cannot tell the session's token from it."""
    return hmac.digest(token.encode("latin-1"), b"csrf", "sha256").hex()


def _is_navigation(headers: Mapping[bytes, str]) -> bool:
    """A page that keeps itself fresh is no sign of the person before it."""
    return b"hx-request" not in headers and "text/event-stream" not in headers.get(b"accept", "")
