"""How do people judge over HTTP?"""

from typing import Any

import pytest

from app.domain.phase import Phase
from tests.services.plane import Stage, situation

REVIEW = {
    "id", "decision_id", "status", "inclusion_probability", "mode", "situation", "legacy", "advisory", "verdicts",
    "claimed_by", "expires_at",
}  # fmt: skip
FEEDBACK = {"situation_id", "llm_decision", "human_decision", "match", "notes", "rollback"}


async def act(stage: Stage, review: str, verb: str, body: object = None, *, who: str = "reviewer") -> Any:
    return await stage.call("POST", f"/v1/reviews/{review}/{verb}", body, who=who)


async def asked(stage: Stage) -> dict[str, Any]:
    """A decision that waits for a person."""
    await stage.enter("write", Phase.ADVISORY)
    document = situation("write", legacy="require_attestation", model="deny")
    answer: dict[str, Any] = (await stage.call("POST", "/v1/decisions", document, who="caller")).json()
    return answer


async def test_a_review_has_every_member(stage: Stage) -> None:
    document = await asked(stage)
    (review,) = (await stage.call("GET", "/v1/reviews", who="reviewer")).json()["reviews"]
    assert review.keys() >= REVIEW
    assert (review["decision_id"], review["kind"]) == (document["id"], "binding")
    assert review["legacy"].keys() >= {"engine", "decision", "rule", "latency_ms"}


async def test_from_the_question_to_the_verdict_that_is_in_force(any_stage: Stage) -> None:
    document = await asked(any_stage)
    assert document["final"] is False
    review = document["review"]["id"]
    claimed = await act(any_stage, review, "claim")
    assert claimed.json()["claimed_by"] == any_stage.principal("reviewer").key_id
    taken = await act(any_stage, review, "claim", who="another_reviewer")
    assert (taken.status_code, taken.json()["type"]) == (409, "claimed")
    said = {"decision": "allow", "category": "unclear", "notes": "known person"}
    verdict = (await act(any_stage, review, "verdict", said)).json()
    assert verdict.keys() >= FEEDBACK
    assert (verdict["situation_id"], verdict["human_decision"]) == (document["id"], "allow")
    story = await any_stage.call("GET", f"/v1/decisions/{document['id']}?wait_s=5", who="caller")
    told = story.json()
    assert (told["decision"], told["answered_by"], told["final"]) == ("allow", "reviewer", True)
    assert "valid_until" in told


async def test_a_second_verdict_is_409(stage: Stage) -> None:
    document = await asked(stage)
    await act(stage, document["review"]["id"], "verdict", {"decision": "deny"})
    again = await act(
        stage, document["review"]["id"], "verdict", {"decision": "allow"}, who="another_reviewer"
    )
    assert (again.status_code, again.json()["type"]) == (409, "already-judged")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["decision"]),
        ({"decision": "perhaps"}, ["decision"]),
        ({"decision": ["allow"]}, ["decision"]),
        ({"decision": "deny", "category": "bad mood"}, ["category"]),
        ({"decision": "deny", "category": {}}, ["category"]),
        ({"decision": "deny", "notes": 7}, ["notes"]),
        ({"decision": "deny", "notes": "a\x00b"}, ["notes"]),
        ({"decision": "deny", "force": True}, ["force"]),
        ([], [""]),
    ],
)
async def test_a_verdict_names_what_is_wrong_with_it(stage: Stage, body: object, fields: list[str]) -> None:
    document = await asked(stage)
    for address in (
        f"/v1/reviews/{document['review']['id']}/verdict",
        f"/v1/decisions/{document['id']}/report",
    ):
        response = await stage.call("POST", address, body, who="reviewer")
        assert response.status_code == 422, response.text
        assert [error["field"] for error in response.json()["errors"]] == fields


async def test_an_own_situation_is_403(stage: Stage) -> None:
    await stage.enter("write", Phase.ADVISORY)
    document = situation("write", legacy="require_attestation", actor="rita")
    answer = (await stage.call("POST", "/v1/decisions", document, who="caller")).json()
    refused = await act(stage, answer["review"]["id"], "verdict", {"decision": "allow"})
    assert (refused.status_code, refused.json()["type"]) == (403, "own-situation")


async def test_a_report_that_confirms_tells_of_its_rollback(stage: Stage) -> None:
    await stage.enter("deploy", Phase.ENFORCED)
    wrong = (await stage.call("POST", "/v1/decisions", situation("deploy"), who="caller")).json()
    body = {"decision": "deny", "notes": "production burnt"}
    first = (await stage.call("POST", f"/v1/decisions/{wrong['id']}/report", body, who="caller")).json()
    assert (first["confirmed"], first["rollback"]) == (False, None)
    told = (await stage.call("POST", f"/v1/decisions/{wrong['id']}/report", body, who="operator")).json()
    assert told.keys() >= FEEDBACK
    assert told["rollback"]["to"]["phase"] == "advisory"


async def test_the_queue_is_filtered_by_status_rollout_and_kind(stage: Stage) -> None:
    document = await asked(stage)
    drawn = await stage.decide("read")
    await stage.until(lambda: stage.review(drawn["id"]))
    for query, wanted in {
        "rollout=write": [document["id"]],
        "kind=drawn": [drawn["id"]],
        "status=judged": [],
        "limit=1": [document["id"]],
        "limit=1&offset=1": [drawn["id"]],
    }.items():
        listed = (await stage.call("GET", f"/v1/reviews?{query}", who="reviewer")).json()["reviews"]
        assert [review["decision_id"] for review in listed] == wanted, query


@pytest.mark.parametrize(
    "query", ["status=lost", "kind=odd", "limit=0", "limit=201", "offset=-1", f"offset={10**30}"]
)
async def test_a_queue_that_cannot_be_is_400(stage: Stage, query: str) -> None:
    assert (await stage.call("GET", f"/v1/reviews?{query}", who="reviewer")).status_code == 400
