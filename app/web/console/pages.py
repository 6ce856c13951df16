"""How does a person's page come about: templates, what every page is told, and what a browser may do with it?"""

import hashlib
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Response

from app.domain.decision import Decision
from app.domain.role import Principal, Role
from app.web.authentication import Asked, services_of
from app.web.console import wording

HERE = Path(__file__).parent
STATIC = HERE / "static"
THEMES = ("auto", "light", "dark")

# The pages that the menu offers, and who may see each (None: everybody who is signed in).
PAGES = (
    ("/", "Board", (Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)),
    ("/reviews", "Reviews", (Role.REVIEWER, Role.OPERATOR)),
    ("/decisions", "Decisions", None),
    ("/approvals", "Approvals", (Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)),
    ("/versions", "Versions", (Role.OPERATOR, Role.APPROVER, Role.AUDITOR)),
    ("/suites", "Suites", (Role.OPERATOR, Role.APPROVER, Role.AUDITOR)),
    ("/reports", "Reports", (Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)),
    ("/audit", "Audit", (Role.OPERATOR, Role.APPROVER, Role.AUDITOR)),
    ("/keys", "Keys", (Role.ADMIN,)),
    ("/system", "Health", None),
)


def page(
    request: Asked,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> Response[bytes]:
    """A page or a part of one, rendered for whoever asks."""
    nonce = secrets.token_urlsafe(16)
    principal = request.scope.get("auth")
    body = (
        _environment()
        .get_template(template)
        .render(
            request_path=request.url.path,
            principal=principal,
            menu=menu_of(principal),
            csrf=getattr(request.state, "csrf", None) or "",
            theme=theme_of(request),
            nonce=nonce,
            kill_switch=services_of(request).plane.view.kill_switch,
            **context,
        )
    )
    return Response(
        body.encode(),
        status_code=status,
        media_type="text/html",
        headers={**_security(nonce), **(headers or {})},
    )


def goes_to(request: Asked, address: str) -> Response[bytes]:
    """See another page: a redirect, or htmx's word for one."""
    if request.headers.get("hx-request"):
        return Response(b"", status_code=200, headers={"HX-Redirect": address})
    return Response(b"", status_code=303, headers={"Location": address})


def is_part(request: Asked) -> bool:
    """Whether htmx asks for a part of the page that it shows."""
    return request.headers.get("hx-request") is not None


def theme_of(request: Asked) -> str:
    chosen = request.cookies.get("theme")
    return chosen if chosen in THEMES else "auto"


def menu_of(principal: Any) -> list[tuple[str, str]]:
    if not isinstance(principal, Principal):
        return []
    return [(path, name) for path, name, roles in PAGES if roles is None or principal.may(*roles)]


def static(name: str) -> str:
    """The address of an asset; it changes with the file, so a browser may keep it for ever."""
    return f"/static/{name}?v={_digest(name)}"


def _security(nonce: str) -> dict[str, str]:
    """Nothing from other hosts, no inline script or style, no frame around it, and no copy kept."""
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; frame-src 'self'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


@cache
def _digest(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(wording.FILTERS)
    environment.globals.update(static=static, decisions=tuple(Decision), Role=Role)
    return environment
