"""Who may call what?"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from app.domain.role import Role
from app.web.console.routes import assets, console
from tests.services.plane import Stage, situation

PUBLIC = frozenset[str]()
EVERYBODY = frozenset(Role) - {Role.ADMIN}
SEEING = frozenset({Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR})
STEERING = frozenset({Role.OPERATOR, Role.APPROVER})
AUDITING = frozenset({Role.AUDITOR, Role.OPERATOR, Role.APPROVER})
ASKING = frozenset({Role.CALLER, Role.REVIEWER, Role.OPERATOR})
JUDGING = frozenset({Role.REVIEWER})
NOBODY = frozenset[Role]()  # but an admin, who holds every role

# Who holds the key to each route; a route that is not here fails the first test below.
DECIDED: dict[tuple[str, str], frozenset[Role] | None] = {
    ("GET", "/health"): None,
    ("GET", "/health/live"): None,
    ("GET", "/health/ready"): None,
    ("GET", "/metrics"): None,
    ("GET", "/schema"): None,
    ("GET", "/schema/openapi.json"): None,
    ("GET", "/schema/{path:str}"): None,
    ("POST", "/v1/decisions"): frozenset({Role.CALLER}),
    ("POST", "/v1/decisions:batch"): frozenset({Role.CALLER}),
    ("GET", "/v1/decisions"): EVERYBODY,
    ("GET", "/v1/decisions/{decision_id:str}"): EVERYBODY,
    ("POST", "/v1/decisions/{decision_id:str}/report"): ASKING,
    ("POST", "/advisory"): ASKING,
    ("GET", "/v1/rollouts"): SEEING,
    ("GET", "/v1/rollouts/{name:str}"): SEEING,
    ("GET", "/v1/rollouts/{name:str}/evidence"): SEEING,
    ("GET", "/v1/rollouts/{name:str}/gate"): SEEING,
    ("GET", "/v1/rollouts/{name:str}/guardrails"): SEEING,
    ("GET", "/v1/rollouts/{name:str}/transitions"): SEEING,
    ("POST", "/v1/rollouts/{name:str}/promote"): STEERING,
    ("POST", "/v1/rollouts/{name:str}/approve"): frozenset({Role.APPROVER}),
    ("GET", "/v1/freezes"): SEEING,
    ("POST", "/v1/freezes"): STEERING,
    ("POST", "/v1/freezes/{freeze_id:str}/end"): frozenset({Role.APPROVER}),
    ("POST", "/v1/rollouts/{name:str}/rollback"): STEERING,
    ("POST", "/v1/rollouts/{name:str}/exposure"): STEERING,
    ("POST", "/v1/rollouts/{name:str}/ramp"): STEERING,
    ("POST", "/v1/rollouts/{name:str}/hold"): STEERING,
    ("POST", "/v1/rollouts/{name:str}/resume"): STEERING,
    ("POST", "/v1/rollouts/{name:str}/investigation"): STEERING,
    ("POST", "/v1/rollouts/{name:str}/version"): STEERING,
    ("POST", "/v1/kill-switch"): STEERING,
    ("GET", "/v1/reviews"): frozenset({Role.REVIEWER, Role.OPERATOR, Role.AUDITOR}),
    ("POST", "/v1/reviews/{review_id:str}/claim"): JUDGING,
    ("POST", "/v1/reviews/{review_id:str}/verdict"): JUDGING,
    ("POST", "/v1/reviews/{review_id:str}/undo"): JUDGING,
    ("POST", "/v1/satisfaction"): JUDGING,
    ("GET", "/v1/satisfaction"): AUDITING,
    ("GET", "/v1/keys"): NOBODY,
    ("POST", "/v1/keys"): NOBODY,
    ("DELETE", "/v1/keys/{key_id:str}"): NOBODY,
    ("GET", "/v1/users"): NOBODY,
    ("POST", "/v1/users"): NOBODY,
    ("POST", "/v1/users/{user:str}/link"): NOBODY,
    ("POST", "/v1/users/{user:str}/roles"): NOBODY,
    ("POST", "/v1/users/{user:str}/actors"): NOBODY,
    ("POST", "/v1/users/{user:str}/disable"): NOBODY,
    ("POST", "/v1/users/{user:str}/enable"): NOBODY,
    ("GET", "/v1/policies/diff"): AUDITING,
    ("POST", "/v1/policies/apply"): STEERING,
    ("GET", "/v1/versions"): AUDITING,
    ("POST", "/v1/versions"): frozenset({Role.OPERATOR}),
    ("POST", "/v1/versions/{version_id:str}/validate"): STEERING,
    ("GET", "/v1/versions/{version_id:str}/validations"): AUDITING,
    ("GET", "/v1/experiments"): SEEING,
    ("GET", "/v1/audit"): AUDITING,
    ("GET", "/v1/audit/verify"): AUDITING,
    ("GET", "/v1/events"): AUDITING,
    ("GET", "/v1/reports"): SEEING,
    ("GET", "/v1/reports/{period:str}"): SEEING,
    ("GET", "/v1/webhooks"): frozenset({Role.OPERATOR}),
    ("POST", "/v1/webhooks"): frozenset({Role.OPERATOR}),
    ("DELETE", "/v1/webhooks/{webhook_id:str}"): frozenset({Role.OPERATOR}),
    ("POST", "/v1/webhooks/{webhook_id:str}/test"): frozenset({Role.OPERATOR}),
    ("GET", "/v1/webhooks/deliveries"): AUDITING,
    ("POST", "/v1/drills/fault"): NOBODY,
}


def routes(application: Litestar) -> Iterator[tuple[str, str]]:
    """Those of the API; who sees which page of the console is decided in `console/test_access.py`."""
    pages = {route.path for router in (console, assets) for route in router.routes}
    for route in application.routes:
        if route.path in pages:
            continue
        assert isinstance(route, HTTPRoute)
        for method in route.methods - {"OPTIONS"}:
            yield method, route.path


def address(path: str) -> str:
    for name in ("decision_id", "review_id", "key_id", "freeze_id", "path"):
        path = path.replace(f"{{{name}:str}}", "none")
    return path.replace("{name:str}", "read")


async def test_every_route_has_its_roles_decided(stage: Stage) -> None:
    assert set(routes(stage.litestar)) == set(DECIDED)


async def test_without_a_key_every_route_but_the_probes_answers_401(stage: Stage) -> None:
    for (method, path), roles in DECIDED.items():
        response = await stage.call(method, address(path), who=None)
        if roles is None:
            assert response.status_code != 401, path
        else:
            assert response.status_code == 401, path
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="phasegate"'
            assert response.json()["type"] == "unauthorized"


@pytest.mark.parametrize("role", list(Role))
async def test_a_key_opens_the_routes_of_its_role_and_no_others(stage: Stage, role: Role) -> None:
    stage.services.notices.close()  # or whoever may follow the events would do so for ever
    for (method, path), roles in DECIDED.items():
        if roles is None:
            continue
        response = await stage.call(method, address(path), who=role.value)
        may = role is Role.ADMIN or role in roles
        assert (response.status_code != 403) is may, (method, path)
        assert response.status_code not in (401, 500), (method, path)


@pytest.mark.parametrize(
    "presented",
    ["Bearer pg_000000000000_wrong", "Bearer ", "Bearer", "Basic cmVhZDpyZWFk", "bearer é", "pg_only", ""],
)
async def test_what_is_no_key_opens_nothing(stage: Stage, presented: str) -> None:
    headers = {b"Authorization": presented.encode("latin-1")}
    response = await stage.client.post("/v1/decisions", json=situation(), headers=headers)
    assert response.status_code == 401


async def test_the_scheme_is_read_in_any_case(stage: Stage) -> None:
    headers = {"Authorization": f"bEARER {stage.keys['caller'][1]}"}
    assert (await stage.client.post("/v1/decisions", json=situation(), headers=headers)).status_code == 200


async def made(stage: Stage, **body: object) -> dict[str, str]:
    response = await stage.call("POST", "/v1/keys", {"name": "new", "roles": ["caller"], **body})
    assert response.status_code == 200, response.text
    key: dict[str, str] = response.json()
    return key


async def opens(stage: Stage, key: str) -> bool:
    headers = {"Authorization": f"Bearer {key}"}
    return (await stage.client.post("/v1/decisions", json=situation(), headers=headers)).status_code == 200


async def test_a_new_key_works_at_once_and_a_revoked_one_stops_at_once(any_stage: Stage) -> None:
    key = await made(any_stage)
    assert await opens(any_stage, key["key"])
    await any_stage.call("DELETE", f"/v1/keys/{key['id']}")
    assert not await opens(any_stage, key["key"])


async def test_a_key_that_has_expired_opens_nothing(stage: Stage) -> None:
    until = stage.clock.now() + timedelta(minutes=1)
    key = await made(stage, expires_at=until.isoformat())
    assert await opens(stage, key["key"])
    stage.clock.passes(minutes=1)
    assert not await opens(stage, key["key"])


async def test_a_key_is_shown_once(stage: Stage) -> None:
    key = await made(stage)
    listed = await stage.call("GET", "/v1/keys")
    assert key["key"] not in listed.text
    assert key["id"] in listed.text
    assert key["key"].encode() not in b"".join(
        path.read_bytes() for path in stage.files.policies_dir.parent.glob("*.db*")
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": " ", "roles": ["caller"]}, "name"),
        ({"name": "a\x00b", "roles": ["caller"]}, "name"),
        ({"name": "x", "roles": []}, "roles"),
        ({"name": "x", "roles": ["king"]}, "roles"),
        ({"name": "x", "roles": ["caller"], "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "x", "roles": ["caller"], "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(stage: Stage, body: object, field: str) -> None:
    response = await stage.call("POST", "/v1/keys", body)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_a_caller_cannot_see_review_or_promote_what_is_anothers(stage: Stage) -> None:
    document = await stage.decide(who="admin")
    await stage.until(lambda: stage.review(document["id"]))
    review = stage.queue()[0]["id"]
    assert (await stage.call("GET", f"/v1/decisions/{document['id']}", who="caller")).status_code == 404
    assert (await stage.call("GET", "/v1/decisions", who="caller")).json()["decisions"] == []
    verdict = {"decision": "deny"}
    assert (
        await stage.call("POST", f"/v1/reviews/{review}/verdict", verdict, who="caller")
    ).status_code == 403
    promotion = {"to": "advisory", "reason": "mine", "expected_revision": 1}
    response = await stage.call("POST", "/v1/rollouts/read/promote", promotion, who="caller")
    assert response.status_code == 403
    reported = await stage.call("POST", f"/v1/decisions/{document['id']}/report", verdict, who="caller")
    assert reported.status_code == 404


async def test_a_key_of_a_distant_future_lives(stage: Stage) -> None:
    key = await made(stage, expires_at=datetime(9999, 1, 1, tzinfo=UTC).isoformat())
    assert await opens(stage, key["key"])
