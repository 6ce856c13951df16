"""Who may see which page, and pull which lever on it?"""

from collections.abc import Iterator

import pytest
from litestar.routes import HTTPRoute

from app.domain.role import Role
from app.web.console.routes import console
from tests.services.plane import Stage
from tests.web.console.browsing import signed_in

SEEING = frozenset({Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR})
STEERING = frozenset({Role.OPERATOR, Role.APPROVER})
AUDITING = frozenset({Role.AUDITOR, Role.OPERATOR, Role.APPROVER})
JUDGING = frozenset({Role.REVIEWER})
EVERYBODY = frozenset(Role) - {Role.ADMIN}
NOBODY = frozenset[Role]()  # but an admin, who holds every role

# Whose pages these are; None is open to strangers. A route that is not here fails the first test below.
DECIDED: dict[tuple[str, str], frozenset[Role] | None] = {
    ("GET", "/"): SEEING,
    ("GET", "/sign-in"): None,
    ("POST", "/sign-in"): None,
    ("GET", "/sign-in/{token:str}"): None,
    ("POST", "/sign-in/{token:str}"): None,
    ("POST", "/oidc/start"): None,
    ("GET", "/oidc/back"): None,
    ("POST", "/sign-out"): EVERYBODY,
    ("GET", "/account"): EVERYBODY,
    ("POST", "/account/password"): EVERYBODY,
    ("POST", "/account/actors"): EVERYBODY,
    ("POST", "/account/sessions/end"): EVERYBODY,
    ("POST", "/kill-switch"): STEERING,
    ("GET", "/decisions"): EVERYBODY,
    ("GET", "/decisions.csv"): EVERYBODY,
    ("GET", "/decisions.jsonl"): EVERYBODY,
    ("GET", "/decisions/{decision_id:str}"): EVERYBODY,
    ("GET", "/decisions/{decision_id:str}/why"): EVERYBODY,
    ("GET", "/decisions/{decision_id:str}/chain"): AUDITING,
    ("POST", "/decisions/{decision_id:str}/report"): frozenset({Role.CALLER, Role.REVIEWER, Role.OPERATOR}),
    ("GET", "/reviews"): JUDGING | {Role.OPERATOR},
    ("GET", "/reviews/{review_id:str}"): JUDGING,
    ("GET", "/reviews/{review_id:str}/reasons"): JUDGING,
    ("GET", "/reviews/next"): JUDGING,
    ("GET", "/reviews/pace"): JUDGING,
    **{
        ("POST", f"/reviews/{act}"): JUDGING
        for act in ("take", "renew", "verdict", "go-on", "undo", "skip", "flag", "satisfaction")
    },
    ("POST", "/reviews/{review_id:str}/settle"): JUDGING | {Role.OPERATOR},
    ("GET", "/rollouts/{name:str}"): SEEING,
    ("POST", "/rollouts/{name:str}/approve"): frozenset({Role.APPROVER}),
    **{
        ("POST", f"/rollouts/{{name:str}}/{act}"): STEERING
        for act in ("promote", "rollback", "exposure", "ramp", "hold", "resume", "investigation", "version")
    },
    ("GET", "/live"): EVERYBODY,
    ("GET", "/live/alarm"): EVERYBODY,
    ("GET", "/versions"): AUDITING,
    ("POST", "/versions"): frozenset({Role.OPERATOR}),
    ("GET", "/versions/{version_id:str}"): AUDITING,
    ("POST", "/versions/{version_id:str}/candidate"): STEERING,
    ("GET", "/suites"): AUDITING,
    ("GET", "/suites/{name:str}"): AUDITING,
    ("POST", "/suites/run"): STEERING,
    ("GET", "/validations/{name:str}"): AUDITING,
    ("GET", "/reference"): EVERYBODY,
    ("GET", "/reports"): SEEING,
    ("GET", "/reports/{period:str}"): SEEING,
    ("GET", "/reports/{period:str}/document"): SEEING,
    ("GET", "/audit"): AUDITING,
    ("GET", "/audit.csv"): AUDITING,
    ("GET", "/audit.jsonl"): AUDITING,
    ("POST", "/audit/verify"): AUDITING,
    ("GET", "/keys"): NOBODY,
    ("POST", "/keys"): NOBODY,
    ("POST", "/keys/{key_id:str}/revoke"): NOBODY,
    ("POST", "/users"): NOBODY,
    ("POST", "/users/{user_id:str}"): NOBODY,
    ("POST", "/users/{user_id:str}/link"): NOBODY,
    ("POST", "/users/{user_id:str}/disable"): NOBODY,
    ("POST", "/users/{user_id:str}/enable"): NOBODY,
    ("GET", "/approvals"): SEEING,
    ("POST", "/approvals/{name:str}"): frozenset({Role.APPROVER}),
    ("POST", "/policies/apply"): STEERING,
    ("POST", "/freezes"): STEERING,
    ("POST", "/freezes/{freeze_id:str}/end"): frozenset({Role.APPROVER}),
    ("GET", "/system"): EVERYBODY,
    ("GET", "/system/preflight"): frozenset({Role.OPERATOR}),
    ("GET", "/system/deliveries"): AUDITING,
    ("POST", "/system/fault"): NOBODY,
    ("POST", "/webhooks"): frozenset({Role.OPERATOR}),
    ("POST", "/webhooks/{webhook_id:str}/test"): frozenset({Role.OPERATOR}),
    ("POST", "/webhooks/{webhook_id:str}/remove"): frozenset({Role.OPERATOR}),
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


async def test_a_session_pulls_no_lever_without_the_token_of_its_page(stage: Stage) -> None:
    browser = await signed_in(stage, "admin")
    headers = await browser.headers()
    forged = [
        headers | {"X-CSRF-Token": "0" * 64},
        {name: value for name, value in headers.items() if name != "X-CSRF-Token"},
        headers | {"Origin": "http://elsewhere"},
        headers | {"Origin": "null"},
        {name: value for name, value in headers.items() if name != "Origin"},
    ]
    for method, path, _ in CLOSED:
        if method == "GET":
            continue
        for sent in forged:
            response = await browser.client.request(method, address(path), headers=sent)
            assert response.status_code == 403, (method, path)
            assert "did not come from a page of ours" in response.text, (method, path)


async def test_a_session_needs_that_token_for_the_api_too(stage: Stage) -> None:
    browser = await signed_in(stage, "admin")
    body = {"engaged": True, "reason": "smoke"}
    refused = await browser.client.post("/v1/kill-switch", json=body)
    assert (refused.status_code, refused.json()["type"]) == (403, "csrf")
    assert refused.headers["X-Request-ID"] == refused.json()["request_id"]
    done = await browser.client.post("/v1/kill-switch", json=body, headers=await browser.headers())
    assert done.status_code == 200


async def test_every_page_has_one_first_heading(stage: Stage) -> None:
    stage.services.notices.close()  # as above
    browser = await signed_in(stage, "admin")
    for method, path, _ in CLOSED:
        if method == "GET" and "{" not in path:
            response = await browser.see(path)
            if response.headers["Content-Type"].startswith("text/html") and response.text.startswith("<!"):
                assert response.text.count("<h1") == 1, path
