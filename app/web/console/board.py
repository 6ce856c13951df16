"""Where does every rollout stand, on one page?"""

from litestar import Response, get

from app.domain.role import Role
from app.web.authentication import Asked, services_of
from app.web.console.access import seen_by
from app.web.console.pages import page

_SEE = [seen_by(Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]


@get("/", guards=_SEE, sync_to_thread=True)
def board(request: Asked) -> Response[bytes]:
    return page(request, "board.html", title="Board", rollouts=services_of(request).rollouts.all())
