"""What does a person see of one rollout, and what do its levers do?"""

import re
from datetime import timedelta
from html import unescape
from pathlib import Path

import httpx
import pytest

from app.domain.phase import Phase
from app.store import tables as t
from app.store.database import Database
from tests.services.plane import ROLLOUTS, FakeModel, Stage, opened
from tests.services.test_levers import with_evidence

HTMX = {"HX-Request": "true"}


async def seen(stage: Stage, name: str = "read", *, who: str = "operator", query: str = "") -> str:
    """The page as somebody reads it: one space between words."""
    response = await stage.call("GET", f"/rollouts/{name}{query}", who=who)
    assert response.status_code == 200, response.text
    return " ".join(unescape(response.text).split())


async def pull(
    stage: Stage, lever: str, name: str = "read", *, who: str = "operator", **fields: str
) -> httpx.Response:
    """Send the form of a lever's dialog, as htmx does."""
    return await stage.call("POST", f"/rollouts/{name}/{lever}", who=who, data=fields, headers=HTMX)


def standing(text: str) -> str:
    """The one sentence at the head of the page."""
    return text[text.index('class="standing"') : text.index('aria-label="Levers"')]


def has_lever(text: str, lever: str) -> bool:
    return f'data-opens="{lever}"' in text


async def test_in_shadow_the_page_says_what_is_missing_and_offers_to_promote_all_the_same(
    stage: Stage,
) -> None:
    text = await seen(stage)
    assert '<a href="#gate">and' in standing(text)
    assert 'id="gate"' in text
    assert 'class="present" aria-current="step"' in text
    assert has_lever(text, "promote")
    assert "so it would be refused" in text
    assert not has_lever(text, "rollback")
    assert not has_lever(text, "exposure")


@pytest.mark.parametrize(("phase", "below"), [(Phase.ADVISORY, "shadow"), (Phase.ENFORCED, "advisory")])
async def test_above_shadow_it_says_where_a_rollback_would_lead(
    stage: Stage, phase: Phase, below: str
) -> None:
    await stage.enter("read", phase, exposure=0.5)
    text = await seen(stage)
    assert f"read goes to {below} at once, for everybody" in text
    assert "An investigation opens; after it is closed the version is observed for 7 days" in text
    assert "now, 50 % of actors" in text
    assert has_lever(text, "exposure")


async def test_at_its_ceiling_there_is_nothing_to_promote_to(stage: Stage) -> None:
    await stage.enter("admin", Phase.ADVISORY)
    text = await seen(stage, "admin")
    assert "At its ceiling: advisory" in text
    assert "never: above the ceiling" in text
    assert not has_lever(text, "promote")
    assert "admin never goes past advisory" in (await seen(stage, "admin", query="?to=enforced")).replace(
        "Admin", "admin"
    )


async def test_a_look_at_another_phases_gate_changes_nothing_of_what_is_promoted(stage: Stage) -> None:
    text = await seen(stage, query="?to=enforced")
    assert "Gate to enforced" in text
    assert "Promote read to advisory" in text


async def test_a_promotion_with_an_unmet_gate_is_refused_with_every_condition_and_changes_nothing(
    stage: Stage,
) -> None:
    before = stage.state("read")
    response = await pull(
        stage, "promote", to="advisory", reason="I want to", expected_revision=str(before.revision)
    )
    assert response.status_code == 409
    assert "Gate to advisory" in response.text
    gate = stage.services.rollouts.gate("read", Phase.ADVISORY)
    for condition in gate["conditions"]:
        assert condition["name"].replace("_", " ") in response.text
    assert stage.state("read") == before


async def test_a_promotion_whose_gate_passes_leads_back_to_the_page(stage: Stage) -> None:
    await with_evidence(stage)
    assert "conditions hold. They are judged once more" in await seen(stage)
    revision = str(stage.state("read").revision)
    response = await pull(stage, "promote", to="advisory", reason="it agrees", expected_revision=revision)
    assert (response.status_code, response.headers["HX-Redirect"]) == (200, "/rollouts/read")
    assert stage.state("read").phase is Phase.ADVISORY
    text = await seen(stage)
    assert "“it agrees”" in text
    assert "What it rested on" in text


async def test_whoever_looked_before_it_moved_is_told_to_look_again(stage: Stage) -> None:
    old = stage.state("read").revision
    await pull(stage, "hold", reason="a drill")
    response = await pull(stage, "promote", to="advisory", reason="now", expected_revision=str(old))
    assert response.status_code == 409
    assert "reload it and look again" in response.text


async def test_a_rollback_takes_its_suggested_reason_and_leads_back_to_the_page(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    suggested = re.search(r'name="reason"[^>]* value="([^"]+)"', await seen(stage))
    assert suggested
    response = await pull(stage, "rollback", reason=suggested[1])
    assert (response.status_code, response.headers["HX-Redirect"]) == (200, "/rollouts/read")
    assert stage.state("read").phase is Phase.ADVISORY
    text = await seen(stage)
    assert f"Rolled back to advisory: {suggested[1]}" in text
    assert has_lever(text, "investigation")


async def test_an_investigation_is_closed_with_its_cause_and_fix(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await pull(stage, "rollback", reason="a drill")
    refused = await pull(stage, "investigation", cause="", fix="another prompt")
    assert refused.status_code == 422
    assert "Cause: is required" in refused.text
    assert (await pull(stage, "investigation", cause="prompt", fix="another prompt")).status_code == 200
    case = stage.state("read").investigation
    assert case is not None
    assert (case.cause, case.fix) == ("prompt", "another prompt")
    assert not has_lever(await seen(stage), "investigation")


async def test_a_held_rollout_says_why(stage: Stage) -> None:
    await pull(stage, "hold", reason="the auditors are here")
    assert "Held: the auditors are here" in standing(await seen(stage))
    await pull(stage, "resume", reason="they left")
    assert "auditors" not in standing(await seen(stage))


async def test_a_frozen_rollout_says_so_with_the_kill_switch_engaged_too(
    stage: Stage,
) -> None:
    await with_evidence(stage)
    by, now = stage.principal("approver"), stage.clock.now()
    begin, end = now.isoformat(), (now + timedelta(days=2)).isoformat()
    await stage.services.freezes.add(
        kind="deny", rollout="read", starts_at=begin, ends_at=end, weekly=False, zone="UTC",
        reason="the year ends", by=by,
    )  # fmt: skip
    assert re.search("[Ff]rozen.*the year ends", standing(await seen(stage)))
    await stage.services.levers.kill(engaged=True, reason="a fire", by=stage.principal("operator"))
    assert re.search("[Ff]rozen.*the year ends", standing(await seen(stage)))


APPROVED = ROLLOUTS.replace("{agreement_above: 0.5, soak_days: 2}", "{agreement_above: 0.5, approvals: 1}")


async def test_an_approver_approves_what_another_promotes(sqlite_database: Database, tmp_path: Path) -> None:
    async with opened(sqlite_database, tmp_path, rollouts=APPROVED) as stage:
        await with_evidence(stage, "write")
        assert 'disabled title="It takes the role approver">Approve' in await seen(stage, "write")
        assert has_lever(await seen(stage, "write", who="approver"), "approve")
        step = {
            "to": "advisory",
            "expected_revision": str(stage.state("write").revision),
            "reason": "I looked",
        }
        assert (await pull(stage, "promote", "write", **step)).status_code == 409
        assert (await pull(stage, "approve", "write", who="approver", **step)).status_code == 200
        assert "1 of 1 approvals (by approver" in await seen(stage, "write")
        assert (await pull(stage, "promote", "write", **step)).status_code == 200
        assert stage.state("write").phase is Phase.ADVISORY


async def test_exposure_offers_the_steps_that_the_server_takes(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY, exposure=0.5)
    offered = re.findall(r'name="exposure" value="([^"]+)" required>', await seen(stage))
    assert offered == ["1.0"]
    revision = str(stage.state("read").revision)
    assert (
        await pull(stage, "exposure", exposure="1.0", reason="quiet", expected_revision=revision)
    ).status_code == 200
    assert stage.state("read").exposure == 1


async def test_a_ramp_is_started_and_stopped_from_the_page(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY, exposure=0.5)
    revision = str(stage.state("read").revision)
    started = await pull(stage, "ramp", action="start", to="1.0", reason="let it", expected_revision=revision)
    assert started.status_code == 200
    assert "Ramp:</strong> waits at 50 %" in await seen(stage)
    assert (await pull(stage, "ramp", action="stop", reason="enough")).status_code == 200
    assert stage.state("read").running_ramp is None


@pytest.mark.parametrize("who", ["reviewer", "auditor"])
async def test_who_may_not_steer_sees_no_lever_and_why(stage: Stage, who: str) -> None:
    await stage.enter("read", Phase.ENFORCED)
    text = await seen(stage, who=who)
    assert "Operators and approvers promote and roll back" in text
    assert not any(
        has_lever(text, lever) for lever in ("promote", "rollback", "hold", "exposure", "candidate")
    )
    assert (await pull(stage, "rollback", reason="I may not", who=who)).status_code == 403
    assert stage.state("read").phase is Phase.ENFORCED


async def test_each_cell_of_the_matrix_leads_to_as_many_decisions_as_it_says(stage: Stage) -> None:
    await stage.decide(legacy="allow", model="allow")
    await stage.observed(n=1)
    await stage.enter("read", Phase.ADVISORY, exposure=0.5)
    for legacy, model, n in (
        ("allow", "allow", 24),
        ("deny", "allow", 20),
        ("allow", "deny", 22),
        ("allow", "timeout", 4),
    ):
        for number in range(n):
            await stage.decide(legacy=legacy, model=model, actor=f"actor-{number}")
    await stage.until(lambda: stage.rows(t.advisories) == 71)
    text = await seen(stage, who="auditor")
    cells = re.findall(r'<td class="(\w+)"><a href="(/decisions\?[^"]+)" aria-label="(\d+) decisions', text)
    assert {kind for kind, _, _ in cells} == {"agree", "laxer", "stricter"}
    for _, address, n in cells:
        page = await stage.call("GET", address, who="auditor")
        assert page.status_code == 200
        rows = set(re.findall(r'href="/decisions/([0-9a-f-]{36})"', page.text))
        assert len(rows) == int(n), address


async def test_who_judges_blind_does_not_count_how_the_others_were_answered(stage: Stage) -> None:
    await stage.decide(legacy="deny", model="allow")
    await stage.observed(n=1)
    for who, sees in (("operator", True), ("auditor", True), ("approver", True), ("reviewer", False)):
        text = await seen(stage, who=who)
        assert ("legacy deny, model allow" in text) is sees, who
        assert ("would tell a reviewer" in text) is not sees, who
        told = (await stage.call("GET", "/v1/rollouts/read/evidence", who=who)).json()
        assert (told["confusion"] == {"deny>allow": 1}) is sees, who


async def test_a_guardrail_says_how_far_it_is_from_its_line(stage: Stage) -> None:
    await with_evidence(stage)
    await stage.looks()
    text = await seen(stage)
    error = next(each for each in stage.services.guard.assessments("read") if each["name"] == "error")
    tile = text[text.index('id="guardrail-error"') : text.index('id="guardrail-latency"')]
    assert error["sentence"][1:] in tile
    assert f"of {error['threshold']:.0f}" in tile
    assert "Rolls back, 12 seen" in tile


async def test_a_candidate_is_set_compared_and_withdrawn_from_the_page(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path, others=[FakeModel(version_id="fake-2")]) as stage:
        assert has_lever(await seen(stage), "candidate")
        chosen = {
            "action": "candidate",
            "version": "fake-2",
            "mode": "both",
            "share": "",
            "reason": "a new prompt",
        }
        assert (await pull(stage, "version", **chosen)).status_code == 200
        text = await seen(stage)
        assert "fake-2 against fake-1" in text
        assert "Only candidate" in text
        assert (await pull(stage, "version", action="withdraw", reason="it is slow")).status_code == 200
        assert "nothing is compared with the active version" in await seen(stage)


async def test_a_version_is_activated_and_reverted_to_from_the_page(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path, others=[FakeModel(version_id="fake-2")]) as stage:
        await pull(stage, "version", action="candidate", version="fake-2", reason="a new prompt")
        assert "It takes over in shadow for 100 % of the actors" in await seen(stage)
        assert (
            await pull(stage, "version", action="activate", version="fake-2", reason="better")
        ).status_code == 200
        assert stage.state("read").version == "fake-2"
        assert "fake-1 answers again" in await seen(stage)
        assert (await pull(stage, "version", action="revert", reason="worse")).status_code == 200
        assert stage.state("read").version == "fake-1"


async def test_what_somebody_wrote_is_shown_not_obeyed(stage: Stage) -> None:
    await pull(stage, "hold", reason="<script>alert(1)</script> \u202eback")
    response = await stage.call("GET", "/rollouts/read", who="operator")
    assert "<script>alert(1)" not in response.text
    assert "[U+202E]back" in response.text


async def test_a_rollout_that_there_is_not_is_said_to_be_none(stage: Stage) -> None:
    response = await stage.call("GET", "/rollouts/nosuch", who="operator")
    assert (response.status_code, "no rollout" in response.text.lower()) == (404, True)
