"""How does a person sign in and out, and what do they see of themselves?"""

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, FromQuery, URLEncodedBody

from app.errors import Conflict, Forbidden
from app.services.sign_in import Session
from app.web.authentication import Asked, principal_of, services_of
from app.web.console.access import seen_by
from app.web.console.pages import goes_to, page
from app.web.sessions import (
    OWN_TOKEN,
    check_form,
    form_token,
    is_secure,
    keep,
    let_go,
    session_of,
    with_form_token,
)

_SEE = [seen_by()]


class Entry(msgspec.Struct):
    """By name and password, or by an API key."""

    form: str = ""
    next: str = "/"
    name: str = ""
    password: str = ""
    key: str = ""


class Ticket(msgspec.Struct):
    form: str = ""


class NewPassword(msgspec.Struct):
    new: str
    old: str = ""


class OwnActor(msgspec.Struct):
    actor: str


@get("/sign-in", sync_to_thread=True)
def sign_in_page(request: Asked, next: FromQuery[str] = "/") -> Response[bytes]:  # noqa: A002 -- the address's word
    if session_of(request) is not None:
        return goes_to(request, own(next))
    return _form(request, wanted=own(next))


@post("/sign-in", status_code=200, opt={OWN_TOKEN: True})
async def sign_in(request: Asked, data: URLEncodedBody[Entry]) -> Response[bytes]:
    """Whatever is wrong is said in the form."""
    use, wanted = services_of(request).sign_in, own(data.next)
    try:
        check_form(request, data.form)
        if data.key:
            token = await use.by_key(data.key.strip(), address=address_of(request))
        else:
            token = await use.by_password(data.name.strip(), data.password, address=address_of(request))
    except Forbidden as refused:
        return _form(request, wanted=wanted, refused=str(refused), name=data.name, by_key=bool(data.key))
    return keep(goes_to(request, wanted), token, days=use.days, secure=is_secure(request))


@get("/sign-in/{token:str}", sync_to_thread=True)
def link_page(request: Asked, token: FromPath[str]) -> Response[bytes]:  # noqa: ARG001 -- looked at when it is sent
    """A page that sends the link on by itself: what only looks at the link, such as a preview, uses nothing up.

    Whoever is signed in sends it by hand: nobody becomes somebody else by a link that they were led to.
    """
    form = form_token(request)
    return with_form_token(
        page(request, "sign_in_link.html", title="Sign in", form=form, itself=session_of(request) is None),
        request,
        form,
    )


@post("/sign-in/{token:str}", status_code=200, opt={OWN_TOKEN: True})
async def by_link(request: Asked, token: FromPath[str], data: URLEncodedBody[Ticket]) -> Response[bytes]:
    use = services_of(request).sign_in
    try:
        check_form(request, data.form)
        session = await use.by_link(token, address=address_of(request))
    except Forbidden as refused:
        return page(request, "sign_in_link.html", status=403, title="Sign in", refused=str(refused))
    return keep(goes_to(request, "/account"), session, days=use.days, secure=is_secure(request))


@post("/sign-out", status_code=200, guards=_SEE)
async def sign_out(request: Asked) -> Response[bytes]:
    session = session_of(request)
    if session is not None:
        await services_of(request).sign_in.out(session)
    return let_go(goes_to(request, "/sign-in"))


@get("/account", guards=_SEE, sync_to_thread=True)
def account(request: Asked) -> Response[bytes]:
    session, principal = session_of(request), principal_of(request)
    own = services_of(request).sign_in.account(principal, session)
    return page(request, "account.html", title="Account", own=own, session=session)


@post("/account/password", status_code=200, guards=_SEE)
async def change_password(request: Asked, data: URLEncodedBody[NewPassword]) -> Response[bytes]:
    """Signs out everywhere, and in again here."""
    use = services_of(request).sign_in
    address = address_of(request)
    token = await use.change_password(_present(request), old=data.old, new=data.new, address=address)
    return keep(goes_to(request, "/account"), token, days=use.days, secure=is_secure(request))


@post("/account/actors", status_code=200, guards=_SEE)
async def add_actor(request: Asked, data: URLEncodedBody[OwnActor]) -> Response[bytes]:
    await services_of(request).users.add_actor(data.actor.strip(), by=_present(request).principal)
    return goes_to(request, "/account")


@post("/account/sessions/end", status_code=200, guards=_SEE)
async def end_others(request: Asked) -> Response[bytes]:
    await services_of(request).sign_in.out_elsewhere(_present(request))
    return goes_to(request, "/account")


def address_of(request: Asked) -> str:
    """Whom we speak with; what a header says of somebody behind them is not believed."""
    return request.client.host if request.client else "unknown"


def _present(request: Asked) -> Session:
    session = session_of(request)
    if session is None:
        raise Conflict("no-session", "this is for who has signed in to the console")
    return session


def _form(
    request: Asked, *, wanted: str, refused: str | None = None, name: str = "", by_key: bool = False
) -> Response[bytes]:
    form = form_token(request)
    response = page(
        request,
        "sign_in.html",
        status=200 if refused is None else 403,
        title="Sign in",
        form=form,
        wanted=wanted,
        refused=refused,
        name=name,
        by_key=by_key,
        oidc=services_of(request).oidc is not None,
    )
    return with_form_token(response, request, form)


def own(address: str) -> str:
    """An address of this site: of another, or what a browser could take for one, comes the board."""
    is_path = address.startswith("/") and not address.startswith("//")
    is_plain = address.isascii() and address.isprintable() and "\\" not in address
    return address if is_path and is_plain else "/"
