"""How do reviewers tell how content they are?"""

import pytest

from tests.services.plane import Stage

PATH = "/v1/satisfaction"


async def test_reviewers_answers_come_back_without_their_names(any_stage: Stage) -> None:
    empty = (await any_stage.call("GET", PATH, who="auditor")).json()
    assert empty == {
        "n": 0,
        "mean": None,
        "by_score": {"1": 0, "2": 0, "3": 0, "4": 0, "5": 0},
        "latest": [],
    }
    said = {"score": 4, "comment": "reasons help"}
    assert (await any_stage.call("POST", PATH, said, who="reviewer")).json() == said
    any_stage.clock.passes(minutes=1)
    await any_stage.call("POST", PATH, {"score": 1}, who="another_reviewer")
    told = (await any_stage.call("GET", PATH, who="operator")).json()
    assert (told["n"], told["mean"], told["by_score"]["4"], told["by_score"]["1"]) == (2, 2.5, 1, 1)
    assert told["latest"] == [
        {"at": "2027-01-15T09:01:00.000000Z", "score": 1, "comment": None},
        {"at": "2027-01-15T09:00:00.000000Z", "score": 4, "comment": "reasons help"},
    ]


async def test_a_reviewer_answers_once_a_day(stage: Stage) -> None:
    assert (await stage.call("POST", PATH, {"score": 5}, who="reviewer")).status_code == 200
    again = await stage.call("POST", PATH, {"score": 1}, who="reviewer")
    assert (again.status_code, again.json()["type"]) == (409, "already-answered")
    stage.clock.passes(hours=15)  # midnight
    assert (await stage.call("POST", PATH, {"score": 1}, who="reviewer")).status_code == 200


async def test_what_is_older_than_was_asked_for_is_left_out(stage: Stage) -> None:
    await stage.call("POST", PATH, {"score": 5}, who="reviewer")
    stage.clock.passes(days=3)
    assert (await stage.call("GET", f"{PATH}?days=3", who="approver")).json()["n"] == 0
    assert (await stage.call("GET", f"{PATH}?days=4", who="approver")).json()["n"] == 1


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"score": 0}, ["score"]),
        ({"score": 6}, ["score"]),
        ({"score": 5, "comment": "a\x00b"}, ["comment"]),
        ({"score": 5, "comment": "a" * 2_001}, ["comment"]),
    ],
)
async def test_an_answer_names_what_is_wrong_with_it(
    stage: Stage, body: dict[str, object], fields: list[str]
) -> None:
    response = await stage.call("POST", PATH, body, who="reviewer")
    assert response.status_code == 422, response.text
    assert [error["field"] for error in response.json()["errors"]] == fields
