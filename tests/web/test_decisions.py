"""What may a caller send, and what comes back?"""

import json
from typing import Any

import httpx
import pytest

from app.domain.phase import Phase
from app.store import tables as t
from tests.services.plane import Stage, situation
from tests.services.test_records import break_journal, move_away

MEMBERS = {
    "id", "created_at", "decision", "final", "rollout", "phase", "exposed", "answered_by", "fallback_reason",
    "combine", "legacy", "version", "revision", "latency_ms", "advisory", "review",
}  # fmt: skip
ADVISORY = {
    "version", "outcome", "decision", "probabilities", "confidence", "coverage", "reasoning", "attributions",
    "latency_ms", "cached",
}  # fmt: skip


async def send(stage: Stage, body: bytes, **headers: str) -> httpx.Response:
    """Raw bytes, by the lane and by the application alike: both must say the same."""
    own = {"Authorization": f"Bearer {stage.keys['caller'][1]}", **headers}
    by_lane = await stage.client.post("/v1/decisions", content=body, headers=own)
    by_application = await stage.without_lane.post("/v1/decisions", content=body, headers=own)
    assert by_lane.status_code == by_application.status_code
    assert by_lane.headers["content-type"] == by_application.headers["content-type"]
    if by_lane.status_code != 200:
        one, other = by_lane.json(), by_application.json()
        assert one | {"request_id": None} == other | {"request_id": None}
    return by_lane


async def refused(stage: Stage, body: bytes, status: int) -> dict[str, Any]:
    """Refused with a problem document, and nothing recorded."""
    response = await send(stage, body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "request_id"} <= problem.keys()
    assert (problem["status"], problem["request_id"]) == (status, response.headers["x-request-id"])
    assert stage.rows(t.decisions) == stage.rows(t.situations) == 0
    return problem


def encoded(**changes: object) -> bytes:
    return json.dumps({**situation(), **changes}).encode()


@pytest.mark.parametrize("phase", list(Phase))
async def test_a_decision_has_every_member(stage: Stage, phase: Phase) -> None:
    await stage.enter("read", phase)
    response = await send(stage, encoded())
    document = response.json()
    assert document.keys() >= MEMBERS
    assert document["legacy"].keys() >= {"engine", "decision", "rule", "latency_ms"}
    assert document["review"] is None or document["review"].keys() >= {"id", "status"}
    if phase is Phase.ENFORCED:
        assert document["advisory"].keys() >= ADVISORY
        assert document["advisory"]["probabilities"].keys() == {"allow", "require_attestation", "deny"}


async def test_probabilities_are_there_even_when_the_model_is_unsure(stage: Stage) -> None:
    stage.model.unsure = True
    await stage.enter("read", Phase.ENFORCED)
    advisory = (await send(stage, encoded())).json()["advisory"]
    assert (advisory["outcome"], advisory["decision"]) == ("unsure", "allow")
    assert advisory["probabilities"]["allow"] == 0.9


async def test_a_story_has_every_member_too(stage: Stage) -> None:
    document = (await send(stage, encoded())).json()
    await stage.until(lambda: stage.rows(t.advisories) == 2)
    story = (await stage.call("GET", f"/v1/decisions/{document['id']}", who="caller")).json()
    assert story.keys() >= {*MEMBERS, "situation", "agreement", "verdicts", "request_id"}
    assert story["advisory"].keys() >= ADVISORY


# What is changed in a good situation, and which fields are then named.
WRONG: list[tuple[dict[str, object], list[str]]] = [
    ({"action_type": None}, ["action_type"]),
    ({"action_type": 7}, ["action_type"]),
    ({"actor_role": ""}, ["actor_role"]),
    ({"actor_id": "a" * 257}, ["actor_id"]),
    ({"actor_id": "a\x00b"}, ["actor_id"]),
    ({"t3_tensor": None}, ["t3_tensor"]),
    ({"t3_tensor": 0.5}, ["t3_tensor"]),
    ({"t3_tensor": {"competence": 0.5}}, ["t3_tensor.reliability", "t3_tensor.integrity"]),
    ({"t3_tensor": {"competence": 2, "reliability": "1", "integrity": True}},
     ["t3_tensor.competence", "t3_tensor.reliability", "t3_tensor.integrity"]),
    ({"t3_tensor": {"competence": 1, "training": 1, "temperament": 1}}, ["t3_tensor"]),
    ({"resource": 7}, ["resource"]),
    ({"team_context": []}, ["team_context"]),
    ({"timestamp": 7}, ["timestamp"]),
    ({"recent_history": [1]}, ["recent_history"]),
    ({"identity_metrics": "x"}, ["identity_metrics"]),
    ({"action_type": 1, "actor_id": 2, "resource": 3}, ["action_type", "actor_id", "resource"]),
]  # fmt: skip


async def test_every_field_that_is_wrong_is_named(stage: Stage) -> None:
    for changes, fields in WRONG:
        problem = await refused(stage, encoded(**changes), 422)
        assert problem["type"] == "invalid-situation"
        assert [error["field"] for error in problem["errors"]] == fields


async def test_what_is_not_json_is_400(stage: Stage) -> None:
    for body in (
        b"",
        b"{",
        b"NaN",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"\xff\xfe",
        b'{"a": "\\ud800"}',
        b"{}x",
    ):
        assert (await refused(stage, body, 400))["type"] == "bad-request"


async def test_what_is_not_an_object_is_no_situation(stage: Stage) -> None:
    for body in (b"[]", b"null", b'"text"', b"7"):
        await refused(stage, body, 422)


@pytest.mark.parametrize(("depth", "status"), [(40, 422), (5_000, 400)])
async def test_what_is_nested_deeply_is_refused(stage: Stage, depth: int, status: int) -> None:
    nested = b"[" * depth + b"]" * depth
    await refused(stage, encoded()[:-1] + b', "extra": ' + nested + b"}", status)


async def test_64_kib_is_the_limit(stage: Stage) -> None:
    room = 64 * 1024 - len(encoded(padding=""))
    await refused(stage, encoded(padding="x" * (room + 1)), 413)
    assert (await send(stage, encoded(padding="x" * room))).status_code == 200


async def test_a_body_without_a_stated_length_has_the_same_limit(stage: Stage) -> None:
    async def chunks() -> Any:
        for _ in range(70):
            yield b"x" * 1024

    headers = {"Authorization": f"Bearer {stage.keys['caller'][1]}"}
    response = await stage.client.post("/v1/decisions", content=chunks(), headers=headers)
    assert response.status_code == 413


@pytest.mark.parametrize(
    "value", ["a\x00b", "\u2028", "\x1b[31m", "𝔸", "<|im_start|>", "'; DROP TABLE decisions"]
)
async def test_any_text_is_kept_as_it_came(any_stage: Stage, value: str) -> None:
    response = await send(any_stage, encoded(team_context=value, more={"x": [value]}))
    assert response.status_code == 200
    story = await any_stage.story(response.json()["id"])
    assert (story["situation"]["team_context"], story["situation"]["more"]) == (value, {"x": [value]})


async def test_both_namings_of_the_trust_tensor_are_one(stage: Stage) -> None:
    newer = encoded(t3_tensor={"talent": 0.8, "training": 0.8, "temperament": 0.8})
    for body in (newer, encoded()):
        story = await stage.story((await send(stage, body)).json()["id"])
        assert story["situation"]["t3_tensor"] == {"competence": 0.8, "reliability": 0.8, "integrity": 0.8}


async def test_any_content_type_is_read_as_json(stage: Stage) -> None:
    response = await send(stage, encoded(), **{"Content-Type": "application/x-www-form-urlencoded"})
    assert response.status_code == 200


async def test_a_request_id_comes_back_and_stays_with_the_decision(stage: Stage) -> None:
    response = await send(stage, encoded(), **{"X-Request-ID": "trace-7"})
    assert response.headers["x-request-id"] == "trace-7"
    assert (await stage.story(response.json()["id"]))["request_id"] == "trace-7"


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1/decisions/none", "/v1/decisions?limit=0", "/v1/audit?x=%00"]
)
async def test_a_problem_bears_the_request_id(stage: Stage, path: str) -> None:
    response = await stage.call("GET", path, headers={"X-Request-ID": "trace-8"})
    assert response.status_code in (400, 404)
    assert response.headers["x-request-id"] == response.json()["request_id"] == "trace-8"


async def test_a_request_id_that_could_forge_a_log_line_is_replaced(stage: Stage) -> None:
    response = await send(stage, encoded(), **{"X-Request-ID": "x" * 500})
    assert len(response.headers["x-request-id"]) < 100


async def test_when_nobody_takes_the_record_the_answer_is_503_and_no_decision(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = move_away(stage)
    break_journal(stage, monkeypatch)
    response = await send(stage, encoded())
    assert (response.status_code, response.json()["type"]) == (503, "not-recorded")
    assert "decision" not in response.json()
    assert response.headers["retry-after"] == "1"
    back()
    assert stage.rows(t.decisions) == 0


# --- many at once ----------------------------------------------------------------------------------


async def batch(stage: Stage, situations: list[Any]) -> httpx.Response:
    return await stage.call("POST", "/v1/decisions:batch", {"situations": situations}, who="caller")


async def test_a_thousand_situations_are_answered_in_order(stage: Stage) -> None:
    asked = [
        situation(actor=f"actor-{number}", legacy=("allow", "deny")[number % 2]) for number in range(1_000)
    ]
    response = await batch(stage, asked)
    assert response.status_code == 200
    assert [one["decision"] for one in response.json()["decisions"]] == ["allow", "deny"] * 500
    assert stage.rows(t.decisions) == 1_000


async def test_a_bad_one_is_a_problem_in_its_place(stage: Stage) -> None:
    bad = {**situation(), "actor_id": None}
    big = {**situation(), "padding": "x" * 70_000}
    response = await batch(stage, [situation(), bad, 7, big, situation()])
    first, missing, number, large, last = response.json()["decisions"]
    assert first["decision"] == last["decision"] == "allow"
    assert [error["field"] for error in missing["errors"]] == ["actor_id"]
    assert [one["status"] for one in (missing, number, large)] == [422, 422, 422]
    assert stage.rows(t.decisions) == 2


@pytest.mark.parametrize("body", [{}, [], {"situations": 7}, {"situations": [{}] * 1_001}])
async def test_a_batch_is_a_list_of_at_most_a_thousand(stage: Stage, body: object) -> None:
    response = await stage.call("POST", "/v1/decisions:batch", body, who="caller")
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "situations"


async def test_4_mib_is_the_limit_of_a_batch(stage: Stage) -> None:
    response = await batch(stage, [{"padding": "x" * (4 * 1024 * 1024)}])
    assert response.status_code == 413


async def test_an_empty_batch_has_an_empty_answer(stage: Stage) -> None:
    assert (await batch(stage, [])).json() == {"decisions": []}


# --- looking back ----------------------------------------------------------------------------------


async def ids(stage: Stage, query: str, *, who: str = "auditor") -> list[str]:
    response = await stage.call("GET", f"/v1/decisions?{query}", who=who)
    assert response.status_code == 200, response.text
    return [one["id"] for one in response.json()["decisions"]]


async def test_decisions_are_found_by_what_is_asked_for(any_stage: Stage) -> None:
    await any_stage.enter("write", Phase.ADVISORY)
    agreeing = await any_stage.decide("read", legacy="allow", model="allow")
    any_stage.clock.passes(hours=1)
    differing = await any_stage.decide("read", legacy="deny", model="allow", actor="bob")
    any_stage.clock.passes(hours=1)
    advised = await any_stage.decide("write", legacy="deny", model="deny", who="admin")
    await any_stage.observed(n=2)
    await any_stage.observed(n=1, rollout="write")
    for query, wanted in {
        "": [advised, differing, agreeing],
        "rollout=read": [differing, agreeing],
        "phase=advisory": [advised],
        "decision=deny": [advised, differing],
        "agreement=false": [differing],
        "agreement=true&rollout=read": [agreeing],
        "actor=bob": [differing],
        "since=2027-01-15T10:00:00Z": [advised, differing],
        "until=2027-01-15T11:00:00%2B01:00": [agreeing],
        "since=2027-01-15T10:00:00&until=2027-01-15T10:00:01": [differing],
        "actor=nobody": [],
    }.items():
        assert await ids(any_stage, query) == [one["id"] for one in wanted], query


async def test_a_cursor_leads_through_all_pages(stage: Stage) -> None:
    asked = [(await stage.decide(actor=f"actor-{number}"))["id"] for number in range(7)]
    found: list[str] = []
    cursor = ""
    for _ in range(4):
        page = (await stage.call("GET", f"/v1/decisions?limit=3{cursor}", who="caller")).json()
        found += [one["id"] for one in page["decisions"]]
        cursor = f"&cursor={page['next_cursor']}"
        if page["next_cursor"] is None:
            break
    assert found == sorted(asked, reverse=True)


@pytest.mark.parametrize(
    "query", ["phase=full", "decision=maybe", "since=yesterday", "limit=501", "agreement=x"]
)
async def test_a_question_that_makes_no_sense_is_refused_by_its_name(stage: Stage, query: str) -> None:
    response = await stage.call("GET", f"/v1/decisions?{query}")
    assert response.status_code in (400, 422)
    assert [error["field"] for error in response.json()["errors"]] == [query.partition("=")[0]]


@pytest.mark.parametrize("wait", ["-1", "nan", "soon"])
async def test_a_wait_is_a_length_of_time(stage: Stage, wait: str) -> None:
    document = await stage.decide()
    assert (await stage.call("GET", f"/v1/decisions/{document['id']}?wait_s={wait}")).status_code == 400


# --- the model's opinion alone -----------------------------------------------------------------------


async def test_an_opinion_comes_with_its_reasons_binds_nobody_and_is_not_recorded(stage: Stage) -> None:
    response = await stage.call("POST", "/advisory", situation(model="deny"), who="caller")
    opinion = response.json()
    assert (response.status_code, opinion["decision"], opinion["model"]) == (200, "deny", "fake.gguf")
    assert opinion["reasoning"] == "deny, mainly because of details"
    assert opinion.keys() >= {"confidence", "probabilities", "version", "attributions"}
    assert stage.rows(t.decisions) == stage.rows(t.advisories) == 0


async def test_an_unsure_opinion_is_still_the_most_probable_label(stage: Stage) -> None:
    stage.model.unsure = True
    opinion = (await stage.call("POST", "/advisory", situation(model="deny"))).json()
    assert (opinion["outcome"], opinion["decision"]) == ("unsure", "deny")


async def test_an_opinion_of_a_model_that_is_away_says_so(stage: Stage) -> None:
    response = await stage.call("POST", "/advisory", situation(model="unavailable"))
    assert (response.status_code, response.json()["outcome"]) == (200, "unavailable")
