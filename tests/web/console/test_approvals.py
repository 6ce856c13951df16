"""Does the page show what waits for a second person, and does it let only a second person act?"""

from html import unescape
from typing import Any

import httpx

from app.domain.phase import Phase
from tests.services.plane import Stage
from tests.services.test_approvals import advised
from tests.services.test_levers import promote

__all__ = ["advised"]

FREEZE = {
    "kind": "deny",
    "rollout": "read",
    "starts_at": "2027-01-15T08:00",
    "ends_at": "2027-01-15T18:00",
    "zone": "Europe/Berlin",
    "reason": "a quiet day",
}


async def pull(stage: Stage, path: str, *, who: str, **fields: Any) -> httpx.Response:
    return await stage.call("POST", path, who=who, data=fields, headers={"HX-Request": "true"})


async def seen(stage: Stage, *, who: str = "approver") -> str:
    response = await stage.call("GET", "/approvals", who=who)
    assert response.status_code == 200, response.text
    return unescape(response.text)


async def approve(stage: Stage, *, who: str = "approver", revision: int | None = None) -> httpx.Response:
    now = stage.state("read").revision if revision is None else revision
    fields = {"to": "enforced", "reason": "seen and agreed", "expected_revision": str(now)}
    return await pull(stage, "/approvals/read", who=who, **fields)


def written(stage: Stage, old: str, new: str) -> None:
    """An operator edits the file."""
    path = stage.files.policies_dir / "rollouts.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


async def test_where_no_gate_asks_the_page_says_how_one_would(stage: Stage) -> None:
    assert "No gate that is next asks for an approval" in await seen(stage)


async def test_an_approver_sees_the_gate_vouches_for_it_and_another_promotes(advised: Stage) -> None:
    page = await seen(advised)
    assert "0 of 1 approvals" in page
    assert "it waits for 1 more person than who promotes" in page
    assert "Override" in page
    assert 'hx-post="/approvals/read"' in page
    assert (await approve(advised)).headers["HX-Redirect"] == "/approvals"
    page = await seen(advised)
    assert "1 of 1 approvals, by approver" in page
    assert "You have approved it" in page
    assert 'hx-post="/approvals/read"' not in page
    await promote(advised, "read", Phase.ENFORCED, who="operator")
    assert advised.state("read").phase is Phase.ENFORCED


async def test_an_operator_sees_what_waits_and_cannot_approve_it(advised: Stage) -> None:
    assert 'hx-post="/approvals/read"' not in await seen(advised, who="operator")
    assert (await approve(advised, who="operator")).status_code == 403


async def test_an_approval_of_what_was_not_looked_at_is_refused(advised: Stage) -> None:
    response = await approve(advised, revision=1)
    assert response.status_code == 409
    assert "0 of 1 approvals" in await seen(advised)


async def test_without_the_evidence_nothing_can_be_approved(advised: Stage) -> None:
    await advised.enter("read", Phase.ADVISORY)
    page = await seen(advised)
    assert "The evidence is not enough yet" in page
    assert 'hx-post="/approvals/read"' not in page


async def test_files_that_are_in_force_wait_for_nobody(stage: Stage) -> None:
    assert "The policy files are what is in force" in await seen(stage)


async def test_what_loosens_is_proposed_by_one_and_applied_by_another(stage: Stage) -> None:
    written(stage, "review_rate: 1", "review_rate: 0.5")
    page = await seen(stage, who="operator")
    assert "loosens" in page
    assert "Back to shadow under a new epoch: read" in page
    sha256 = stage.services.policies.diff()["files_sha256"]
    assert (await pull(stage, "/policies/apply", who="operator", files_sha256=sha256)).status_code == 200
    assert "You have proposed it, so somebody else applies it" in await seen(stage, who="operator")
    assert "operator has proposed it" in await seen(stage)
    again = await pull(stage, "/policies/apply", who="operator", files_sha256=sha256)
    assert again.status_code == 403
    await pull(stage, "/policies/apply", who="approver", files_sha256=sha256)
    assert "The policy files are what is in force" in await seen(stage)


async def test_files_that_changed_since_they_were_looked_at_are_not_applied(stage: Stage) -> None:
    written(stage, "review_rate: 1", "review_rate: 0.5")
    sha256 = stage.services.policies.diff()["files_sha256"]
    written(stage, "review_rate: 0.5", "review_rate: 0.1")
    response = await pull(stage, "/policies/apply", who="approver", files_sha256=sha256)
    assert response.status_code == 409
    assert "have changed since" in response.text
    assert stage.services.policies.diff()["proposed_by"] is None


async def test_a_file_that_is_wrong_is_a_line_of_the_page_and_not_its_end(stage: Stage) -> None:
    written(stage, "risk: low", "risk: none at all")
    page = await seen(stage)
    assert "The policy files cannot be read" in page
    assert "Freezes" in page


async def test_a_reviewer_sees_nothing_of_the_policy_files(stage: Stage) -> None:
    assert "Policy changes" not in await seen(stage, who="reviewer")


async def test_a_freeze_begins_and_ends_on_the_page(stage: Stage) -> None:
    assert "No freeze" in await seen(stage)
    response = await pull(stage, "/freezes", who="operator", **FREEZE, weekly="true")
    assert response.headers["HX-Redirect"] == "/approvals"
    (made,) = stage.services.freezes.all()
    assert (made["starts_at"], made["weekly"]) == ("2027-01-15T07:00:00.000000Z", True)
    page = await seen(stage)
    assert "a quiet day" in page
    assert "by operator" in page
    assert "2027-01-15 07:00:00" in page
    assert "/end" not in await seen(stage, who="operator")
    await pull(stage, f"/freezes/{made['id']}/end", who="approver", reason="urgent")
    assert "No freeze" in await seen(stage)


async def test_a_freeze_that_cannot_be_is_refused_with_the_reason(stage: Stage) -> None:
    response = await pull(stage, "/freezes", who="operator", **{**FREEZE, "zone": "Middle Earth"})
    assert response.status_code == 422
    assert "must be an IANA time zone" in response.text
    assert (await pull(stage, "/freezes", who="operator", **{**FREEZE, "reason": " "})).status_code == 422
