"""Who may see a page, and how does a person learn what went wrong?"""

from typing import Any
from urllib.parse import quote

from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions import PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from app.domain.role import Principal, Role
from app.web.console.pages import goes_to, is_part, page
from app.web.problems import problem_of, told


class NotSignedIn(Exception):
    """Nobody is signed in; the way there begins at the sign-in page."""


def seen_by(*roles: Role) -> Guard:
    """A page's guard: the sign-in page for strangers, a refusal where none of the roles is held.

    Without roles everybody who is signed in may see it.
    """

    async def check(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        principal = connection.scope.get("auth")
        if not isinstance(principal, Principal):
            raise NotSignedIn
        if roles and not principal.may(*roles):
            raise PermissionDeniedException(f"this takes the role {' or '.join(roles)}")

    return check


def explain(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The exception handler of all pages: a page, or where htmx asked for a part, an alert to put in its place."""
    if isinstance(error, NotSignedIn):
        wanted = request.url.path if request.method == "GET" and not is_part(request) else "/"
        return goes_to(request, f"/sign-in?next={quote(wanted)}")
    problem = problem_of(error)
    told(request, problem, error)
    template = "problem_part.html" if is_part(request) else "problem.html"
    return page(request, template, status=problem["status"], problem=problem, title="That did not work")
