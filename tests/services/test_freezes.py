"""Do promotions rest when people say so, and nothing else?"""

from datetime import timedelta
from typing import Any

import pytest

from app.domain.phase import Phase
from app.errors import Conflict, Forbidden, GateNotMet, InvalidInput, NotFound
from app.services.administration import TransitionFilters
from tests.services.plane import BEGINNING, Stage
from tests.services.test_levers import promote, roll_back, with_evidence


async def freeze(stage: Stage, *, who: str = "operator", **said: Any) -> dict[str, Any]:
    """From an hour ago to in two hours, if not as said."""
    plain = {
        "kind": "deny",
        "rollout": "read",
        "starts_at": (BEGINNING - timedelta(hours=1)).isoformat(),
        "ends_at": (BEGINNING + timedelta(hours=2)).isoformat(),
        "weekly": False,
        "zone": "UTC",
        "reason": "a quiet day",
    }
    return await stage.services.freezes.add(**{**plain, **said}, by=stage.principal(who))


async def expose(stage: Stage, share: float) -> dict[str, Any]:
    return await stage.services.levers.expose(
        "read", exposure=share, reason="so", expected_revision=None, by=stage.principal("operator")
    )


async def test_a_frozen_promotion_says_until_when_and_goes_when_it_is_over(any_stage: Stage) -> None:
    await with_evidence(any_stage)
    await freeze(any_stage)
    with pytest.raises(GateNotMet) as refusal:
        await promote(any_stage, "read", Phase.ADVISORY)
    (shut,) = [one for one in refusal.value.gate["conditions"] if one["outcome"] != "pass"]
    assert (shut["name"], shut["eta"]) == ("freeze", 7_200.0)
    assert "until 2027-01-15 11:00 UTC" in shut["sentence"]
    any_stage.clock.passes(hours=2)
    await promote(any_stage, "read", Phase.ADVISORY)


async def test_a_freeze_binds_what_rises_and_nothing_that_falls(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED, exposure=0.5)
    await freeze(stage)
    with pytest.raises(Conflict, match="frozen until"):
        await expose(stage, 1.0)
    await expose(stage, 0.25)
    await stage.services.levers.hold("read", reason="so", by=stage.principal("operator"))
    await stage.services.levers.resume("read", reason="so", by=stage.principal("operator"))
    await roll_back(stage)
    assert stage.state("read").phase is Phase.ADVISORY


async def test_a_freeze_leaves_other_rollouts(stage: Stage) -> None:
    await with_evidence(stage)
    await freeze(stage, rollout="write")
    await promote(stage, "read", Phase.ADVISORY)


async def test_where_hours_are_allowed_it_is_frozen_outside_of_them(stage: Stage) -> None:
    await with_evidence(stage)
    later = (BEGINNING + timedelta(hours=1)).isoformat()
    await freeze(stage, kind="allow", rollout="*", starts_at=later)
    with pytest.raises(GateNotMet):
        await promote(stage, "read", Phase.ADVISORY)
    stage.clock.passes(hours=1)
    await promote(stage, "read", Phase.ADVISORY)


async def test_a_freeze_is_ended_once_and_both_stand_in_the_history(any_stage: Stage) -> None:
    made = await freeze(any_stage)
    assert [each["active"] for each in any_stage.services.freezes.all()] == [True]
    approver = any_stage.principal("approver")
    await any_stage.services.freezes.end(made["id"], reason="urgent", by=approver)
    assert any_stage.services.freezes.all() == []
    with pytest.raises(NotFound):
        await any_stage.services.freezes.end(made["id"], reason="again", by=approver)
    history = any_stage.services.administration.audit(TransitionFilters("read"), cursor=None, limit=10)
    assert [(each["kind"], each["reason"]) for each in history["transitions"]] == [
        ("freeze", "urgent"),
        ("freeze", "a quiet day"),
    ]


async def test_further_hours_are_allowed_by_an_approver(stage: Stage) -> None:
    await freeze(stage, kind="allow")
    with pytest.raises(Forbidden):
        await freeze(stage, kind="allow")
    await freeze(stage, kind="allow", who="approver")


async def test_times_without_an_offset_are_the_zones(stage: Stage) -> None:
    hours = {"starts_at": "2027-02-01T09:00", "ends_at": "2027-02-01T10:00"}
    made = await freeze(stage, **hours, zone="Europe/Berlin")
    assert (made["starts_at"], made["zone"]) == ("2027-02-01T08:00:00.000000Z", "Europe/Berlin")


@pytest.mark.parametrize(
    ("said", "field"),
    [
        pytest.param({"kind": "maybe"}, "kind", id="no such kind"),
        pytest.param({"zone": "Mars/Olympus"}, "zone", id="no such zone"),
        pytest.param({"zone": "../../etc/passwd"}, "zone", id="a zone that is a path"),
        pytest.param({"starts_at": "0001-01-01", "zone": "Asia/Tokyo"}, "starts_at", id="before all clocks"),
        pytest.param({"starts_at": "yesterday"}, "starts_at", id="no time"),
        pytest.param({"ends_at": "2027-01-15T07:00Z"}, "ends_at", id="before it begins"),
        pytest.param({"starts_at": "2026-01-01", "ends_at": "2026-01-02"}, "ends_at", id="past"),
        pytest.param({"weekly": True, "ends_at": "2027-01-23"}, "ends_at", id="longer than its week"),
    ],
)
async def test_a_freeze_that_makes_no_sense_names_the_field(stage: Stage, said: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await freeze(stage, **said)
    assert field in [name for name, _ in refusal.value.fields]


async def test_a_freeze_of_no_rollout_is_not_found(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await freeze(stage, rollout="nowhere")
