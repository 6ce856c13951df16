"""What do probes and Prometheus see?"""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.domain.phase import Phase
from app.services.gauges import show
from app.store.database import Database
from tests.services.plane import FakeModel, Stage, opened, situation
from tests.services.test_records import move_away
from tests.web.console.test_access import DECIDED as PAGES
from tests.web.test_authentication import DECIDED


async def health(stage: Stage) -> dict[str, object]:
    response = await stage.call("GET", "/health", who=None)
    assert response.status_code == 200
    document: dict[str, object] = response.json()
    return document


async def test_a_healthy_server_says_so_and_what_its_model_is(stage: Stage) -> None:
    document = await health(stage)
    assert (document["status"], document["degraded"]) == ("healthy", [])
    assert document["model"]["name"] == "fake.gguf"  # type: ignore[index]
    assert document["drills"] is True


async def test_other_versions_stand_beside_the_default_with_what_is_wrong_with_them(
    sqlite_database: Database, tmp_path: Path
) -> None:
    down = FakeModel("fake-2", is_ready=False)
    async with opened(sqlite_database, tmp_path, others=[down]) as stage:
        document = await health(stage)
    assert document["status"] == "healthy"
    assert document["versions"] == [
        {
            "version": "fake-2",
            "state": "down",
            "name": "fake.gguf",
            "queue": 0,
            "circuit_open": False,
            "device": None,
            "error": None,
        }
    ]


async def test_a_rollout_whose_own_version_does_not_answer_degrades_the_server(
    sqlite_database: Database, tmp_path: Path
) -> None:
    other = FakeModel("fake-2")
    async with opened(sqlite_database, tmp_path, others=[other]) as stage:
        body = {"action": "activate", "version": "fake-2", "reason": "r", "expected_revision": 1}
        assert (await stage.call("POST", "/v1/rollouts/read/version", body)).status_code == 200
        assert (await health(stage))["degraded"] == []
        other.is_ready = False
        assert (await health(stage))["degraded"] == ["versions"]


@pytest.mark.parametrize("part", ["model", "circuit", "plane", "ledger"])
async def test_a_degraded_server_says_which_part_is_not_well(stage: Stage, part: str) -> None:
    back = None
    match part:
        case "model":
            stage.model.is_ready = False
        case "circuit":
            stage.model.circuit_open = True
        case "plane":
            stage.clock.passes(seconds=6)
        case _:
            back = move_away(stage)
            await stage.decide()
    document = await health(stage)
    assert document["status"] == "degraded"
    assert document["degraded"] == ["model" if part == "circuit" else part]
    if back:
        back()


async def test_a_server_is_alive_whatever_else(stage: Stage) -> None:
    stage.model.is_ready = False
    assert (await stage.call("GET", "/health/live", who=None)).status_code == 200


async def test_a_server_is_ready_once_its_model_has_loaded_for_the_first_time(stage: Stage) -> None:
    stage.model.loaded_once = False
    assert (await stage.call("GET", "/health/ready", who=None)).status_code == 503
    stage.model.loaded_once = True
    stage.model.is_ready = False
    assert (await stage.call("GET", "/health/ready", who=None)).status_code == 200


async def test_no_label_ever_holds_an_actor_an_id_or_free_text(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    document = (await stage.call("POST", "/v1/decisions", situation(actor="mallory"), who="caller")).json()
    await stage.call("POST", "/v1/decisions", situation("an-odd-action", actor="mallory"), who="caller")
    await stage.call("GET", f"/v1/decisions/{document['id']}")
    await stage.call("GET", "/some/where/else")
    await stage.call(
        "POST", f"/v1/decisions/{document['id']}/report", {"decision": "deny", "notes": "secret words"}
    )
    await stage.call("POST", "/v1/rollouts/read/hold", {"reason": "secret words"})
    await stage.looks()
    show(stage.services)
    text = (await stage.call("GET", "/metrics", who=None)).text
    for never in (
        "mallory",
        document["id"],
        "secret words",
        "an-odd-action",
        stage.principal("admin").key_id,
        "/some/",
    ):
        assert never not in text


async def test_labels_come_from_closed_sets(stage: Stage) -> None:
    await stage.call("POST", "/v1/decisions", situation(), who="caller")
    await stage.call("GET", "/v1/rollouts/read")
    show(stage.services)
    text = (await stage.call("GET", "/metrics", who=None)).text
    paths = {path.replace(":str}", "}") for _, path in (*DECIDED, *PAGES)}
    paths |= {"/static/{file_path}", "unmatched"}
    rollouts = {policy.name for policy in stage.services.plane.view.policy.book.policies}
    families = {family.name: family for family in text_string_to_metric_families(text)}
    asked = {sample.labels["route"] for sample in families["phasegate_http_requests"].samples}
    assert "/v1/decisions" in asked
    assert asked <= paths
    assert {sample.labels["rollout"] for sample in families["phasegate_phase"].samples} >= rollouts
    assert families["phasegate_decisions"].samples


async def test_the_plane_is_shown_as_it_stands(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED, exposure=0.5)
    stage.clock.passes(seconds=3)
    show(stage.services)
    text = (await stage.call("GET", "/metrics", who=None)).text
    assert 'phasegate_phase{rollout="read"} 2.0' in text
    assert 'phasegate_exposure{rollout="read"} 0.5' in text
    assert "phasegate_snapshot_age_seconds 3.0" in text
