"""How does a person sign in at an OpenID provider and come back?"""

import hmac

import msgspec
from litestar import Response, get, post
from litestar.params import FromQuery, URLEncodedBody

from app.errors import Forbidden, NotFound
from app.services.oidc import BACK, Asking, Provider
from app.web.authentication import Asked, services_of
from app.web.console.pages import goes_to, page
from app.web.console.sign_in import address_of, own
from app.web.sessions import OWN_TOKEN, check_form, keep, seen_at, set_cookie

_COOKIE = "phasegate_oidc"
_WITHIN_S = 600


class Start(msgspec.Struct):
    form: str = ""
    next: str = "/"


@post("/oidc/start", status_code=200, opt={OWN_TOKEN: True})
async def start(request: Asked, data: URLEncodedBody[Start]) -> Response[bytes]:
    """A page that leads on: the policy that forbids forms to other sites would stop a redirect."""
    provider = _provider(request)
    check_form(request, data.form)
    address, asking = await provider.begin(base=seen_at(request), wanted=own(data.next))
    response = page(request, "oidc.html", title="Sign in", address=address)
    return _kept(response, asking)


@get(BACK)
async def back(request: Asked, code: FromQuery[str] = "", error: FromQuery[str] = "") -> Response[bytes]:
    """From the provider: in, or a page that says why not."""
    state = str(request.query_params.get("state", ""))  # the framework keeps this name for itself
    provider, use = _provider(request), services_of(request).sign_in
    asking = _asking(request)
    if asking is None or not hmac.compare_digest(asking.state.encode(), state.encode()):
        raise Forbidden(
            "oidc-failed", "this sign-in began in another browser, or too long ago: begin it again"
        )
    if error or not code:
        raise Forbidden("oidc-failed", f"the OpenID provider let you not in: {error or 'it sent no code'}")
    vouched = await provider.finish(asking, code=code)
    token = await use.by_subject(
        vouched.subject, name=vouched.name, roles=vouched.roles, address=address_of(request)
    )
    response = keep(goes_to(request, own(asking.next)), token, days=use.days, secure=_is_secure(asking))
    return set_cookie(response, _COOKIE, "", secure=_is_secure(asking), max_age=0)


def _provider(request: Asked) -> Provider:
    provider = services_of(request).oidc
    if provider is None:
        raise NotFound("page", request.url.path)
    return provider


def _kept(response: Response[bytes], asking: Asking) -> Response[bytes]:
    value = msgspec.json.encode(asking).hex()
    return set_cookie(response, _COOKIE, value, secure=_is_secure(asking), max_age=_WITHIN_S)


def _asking(request: Asked) -> Asking | None:
    try:
        return msgspec.json.decode(bytes.fromhex(request.cookies.get(_COOKIE, "")), type=Asking)
    except ValueError:  # msgspec's errors are of it too
        return None


def _is_secure(asking: Asking) -> bool:
    return asking.base.startswith("https://")
