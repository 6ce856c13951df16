"""What do approvals and freezes look like over HTTP?"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.domain.phase import Phase
from app.store import tables as t
from app.store.database import Database
from tests.services.plane import Stage, opened
from tests.services.test_approvals import FOUR_EYES

FREEZE = {
    "id", "kind", "rollout", "starts_at", "ends_at", "weekly", "zone", "reason", "active",
    "created_at", "created_by", "ended_at", "ended_by",
}  # fmt: skip
HOLIDAYS = {"kind": "deny", "starts_at": "2027-01-01", "ends_at": "2027-02-01", "reason": "holidays"}


@pytest.fixture
async def four_eyes(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    async with opened(sqlite_database, tmp_path, rollouts=FOUR_EYES) as stage:
        await stage.enter("read", Phase.ADVISORY)
        for number in range(12):
            await stage.decide(actor=f"actor-{number}")
        await stage.until(lambda: stage.rows(t.reviews) == 12)
        yield stage


async def test_an_approval_answers_with_the_rollout_and_is_409_before_all_else_holds(
    four_eyes: Stage,
) -> None:
    body = {"to": "enforced", "reason": "seen", "expected_revision": four_eyes.state("read").revision}
    early = await four_eyes.call("POST", "/v1/rollouts/read/approve", body, who="approver")
    assert (early.status_code, early.json()["type"]) == (409, "gate-not-met")
    assert early.json()["gate"]["conditions"][-1]["name"] == "approvals"
    await four_eyes.judge_all("allow")
    given = await four_eyes.call("POST", "/v1/rollouts/read/approve", body, who="approver")
    assert given.status_code == 200, given.text
    document = given.json()
    assert (document["phase"], document["gate"]["outcome"]) == ("advisory", "pass")
    assert (document["transition"]["kind"], document["transition"]["to"]["approved"]) == (
        "approval",
        "enforced",
    )
    promoted = await four_eyes.call("POST", "/v1/rollouts/read/promote", body, who="operator")
    assert (promoted.status_code, promoted.json()["phase"]) == (200, "enforced")


async def test_a_freeze_has_every_member_from_its_declaration_to_its_end(stage: Stage) -> None:
    made = (await stage.call("POST", "/v1/freezes", HOLIDAYS, who="operator")).json()
    assert made.keys() == FREEZE | {"transition"}
    assert (made["rollout"], made["zone"], made["active"], made["ended_at"]) == ("*", "UTC", True, None)
    (listed,) = (await stage.call("GET", "/v1/freezes", who="auditor")).json()["freezes"]
    assert listed == {name: made[name] for name in FREEZE}
    ended = await stage.call("POST", f"/v1/freezes/{made['id']}/end", {"reason": "done"}, who="approver")
    assert ended.json()["ended_at"] is not None
    assert (await stage.call("GET", "/v1/freezes")).json() == {"freezes": []}
    again = await stage.call("POST", f"/v1/freezes/{made['id']}/end", {"reason": "done"}, who="approver")
    assert again.status_code == 404


async def test_a_frozen_lever_is_409_and_says_until_when(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY, exposure=0.5)
    await stage.call("POST", "/v1/freezes", HOLIDAYS, who="operator")
    body = {"exposure": 1.0, "reason": "wider"}
    refused = await stage.call("POST", "/v1/rollouts/read/exposure", body, who="operator")
    assert (refused.status_code, refused.json()["type"]) == (409, "frozen")
    assert "until 2027-02-01 00:00 UTC" in refused.json()["detail"]


@pytest.mark.parametrize("field", ["kind", "zone", "starts_at"])
async def test_what_makes_no_sense_is_422_and_named(stage: Stage, field: str) -> None:
    refused = await stage.call("POST", "/v1/freezes", {**HOLIDAYS, field: "?"}, who="operator")
    assert (refused.status_code, refused.json()["type"]) == (422, "invalid-input")
    assert [each["field"] for each in refused.json()["errors"]] == [field]
