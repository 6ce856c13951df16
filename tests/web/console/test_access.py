"""Who may see which page, and pull which lever on it?"""

from collections.abc import Iterator

import pytest
from litestar.routes import HTTPRoute

from app.domain.role import Role
from app.web.console.routes import console
from tests.services.plane import Stage

SEEING = frozenset({Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR})
STEERING = frozenset({Role.OPERATOR, Role.APPROVER})
AUDITING = frozenset({Role.AUDITOR, Role.OPERATOR, Role.APPROVER})
JUDGING = frozenset({Role.REVIEWER})
EVERYBODY = frozenset(Role) - {Role.ADMIN}
NOBODY = frozenset[Role]()  # but an admin, who holds every role

# Whose pages these are; None is open to strangers. A route that is not here fails the first test below.
DECIDED: dict[tuple[str, str], frozenset[Role] | None] = {
    ("GET", "/"): SEEING,
}
CLOSED = [(method, path, roles) for (method, path), roles in DECIDED.items() if roles is not None]


def routes() -> Iterator[tuple[str, str]]:
    for route in console.routes:
        assert isinstance(route, HTTPRoute)
        for method in route.methods - {"OPTIONS"}:
            yield method, route.path


def address(path: str) -> str:
    """Some address of a route: of a rollout that there is, and of other things that there are not."""
    return "/".join(
        part if not part.startswith("{") else "read" if part.startswith("{name:") else "none"
        for part in path.split("/")
    )


def test_every_page_has_its_roles_decided() -> None:
    assert set(routes()) == set(DECIDED)


async def test_strangers_are_sent_to_the_sign_in_page(stage: Stage) -> None:
    for method, path, _ in CLOSED:
        response = await stage.call(method, address(path), who=None)
        assert response.status_code == 303, path
        assert response.headers["Location"].startswith("/sign-in?next=/"), path


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_opens_its_pages_and_no_others(stage: Stage, role: Role) -> None:
    stage.services.notices.close()  # or whoever may follow the news would do so for ever
    for method, path, roles in CLOSED:
        response = await stage.call(method, address(path), who=role.value)
        may = role is Role.ADMIN or role in roles
        assert (response.status_code != 403) is may, (method, path, response.status_code)
        assert response.status_code < 500, (method, path)
        if not may:
            assert response.headers["Content-Type"].startswith("text/html"), path
