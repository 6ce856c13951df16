"""Does the health page tell how the server is in words, also where something is not well?"""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from app.errors import StoreUnavailable
from app.scheduling.leadership import Leadership
from app.settings import load_settings
from app.store.database import Database
from tests.peer import Peer, Reply, serving
from tests.services.plane import SHIPPED, FakeModel, Stage, opened

SECRET = "an admin key of thirty-two characters".replace(" ", "-")


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as peer:
        yield peer


@pytest.fixture
async def led(stage: Stage) -> AsyncIterator[Stage]:
    """A server that leads."""
    leadership = Leadership(stage.ledger, "test", now=stage.clock.now)
    await leadership.hold()
    yield stage
    await leadership.let_go()


def knows_settings(stage: Stage, folder: Path, **more: str) -> None:
    environ = {
        "PHASEGATE_DATA_DIR": str(folder),
        "PHASEGATE_CACHE_DIR": str(folder),
        "PHASEGATE_POLICIES_DIR": str(SHIPPED),
        "PHASEGATE_ADMIN_KEY": SECRET,
        "PHASEGATE_MODEL": "off",
        **more,
    }
    stage.services.health = replace(stage.services.health, settings=load_settings(environ))


async def pull(stage: Stage, path: str, *, who: str = "operator", **fields: Any) -> httpx.Response:
    return await stage.call("POST", path, who=who, data=fields, headers={"HX-Request": "true"})


async def seen(stage: Stage, path: str = "/system", *, who: str = "operator", **headers: str) -> str:
    response = await stage.call("GET", path, who=who, headers=headers)
    assert response.status_code == 200, response.text
    return unescape(response.text)


def part(stage: Stage, name: str) -> tuple[str, str]:
    (found,) = [each for each in stage.services.health.parts() if each.name == name]
    return found.outcome, found.sentence


async def test_a_server_that_is_well_says_so(led: Stage) -> None:
    led.services.health = replace(led.services.health, drills=False)
    page = await seen(led)
    assert "Everything is well" in page
    assert "Ready: fake.gguf" in page
    assert "This instance leads" in page


async def test_it_refreshes_its_status_alone(stage: Stage) -> None:
    part_of_it = await seen(stage, **{"HX-Request": "true"})
    assert part_of_it.strip().startswith('<section id="status"')
    assert "<html" not in part_of_it


async def test_without_a_leader_the_page_says_what_rests(stage: Stage) -> None:
    assert part(stage, "leader")[0] == "error"
    assert "Degraded: leader" in await seen(stage)


async def test_a_model_that_is_down_is_named_with_who_answers(stage: Stage) -> None:
    stage.model.is_ready = False
    outcome, sentence = part(stage, "model fake-1")
    assert outcome == "error"
    assert "the legacy engine answers" in sentence
    assert (await stage.call("GET", "/health")).json()["degraded"] == ["model"]


async def test_a_version_in_use_that_is_not_ready_is_named(sqlite_database: Database, tmp_path: Path) -> None:
    other = FakeModel("fake-2", is_ready=False)
    async with opened(sqlite_database, tmp_path, others=(other,)) as stage:
        assert not [each for each in stage.services.health.parts() if each.name == "versions"]
        assert part(stage, "model fake-2")[0] == "error"


async def test_what_is_too_old_is_an_error_with_its_age(stage: Stage) -> None:
    stage.clock.passes(seconds=61)
    assert part(stage, "snapshot") == (
        "error",
        "phases, versions and keys were read 1.0 min ago; 5 s are allowed, so the legacy engine answers",
    )
    assert part(stage, "guardrails")[0] == "error"


async def test_a_clock_that_jumped_and_a_kill_switch_are_worth_a_look(stage: Stage) -> None:
    by = stage.principal("operator")
    await stage.services.levers.kill(engaged=True, reason="a drill", by=by)
    stage.clock.jumps(minutes=10)
    await stage.services.guard.look()
    stage.services.plane.refresh()
    assert part(stage, "kill switch")[1].startswith("engaged")
    assert part(stage, "clock")[0] == "warning"


async def test_the_page_comes_while_the_database_is_away(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knows_settings(stage, tmp_path)

    def away(_: Database, **__: float) -> NoReturn:
        raise StoreUnavailable("the disk is gone")

    monkeypatch.setattr(Database, "read", away)
    page = await seen(stage)
    assert "The database is away, so webhooks and sizes cannot be read" in page
    assert "The lease cannot be read" in page


async def test_preflight_runs_on_demand_and_says_what_mends(stage: Stage, tmp_path: Path) -> None:
    knows_settings(stage, tmp_path / "none", PHASEGATE_DATABASE_URL="sqlite:////nowhere/at/all.db")
    page = await seen(stage, "/system/preflight")
    assert "Database" in page
    assert "start the database or mend PHASEGATE_DATABASE_URL" in page
    assert ">fail<" in page


async def test_settings_are_for_admins_and_secrets_are_masked(stage: Stage, tmp_path: Path) -> None:
    knows_settings(stage, tmp_path)
    assert "PHASEGATE_DATA_DIR" not in await seen(stage)
    page = await seen(stage, who="admin")
    assert "PHASEGATE_DATA_DIR" in page
    assert "********" in page
    assert SECRET not in page


async def test_a_caller_sees_how_it_is_and_nothing_of_the_inside(stage: Stage, tmp_path: Path) -> None:
    knows_settings(stage, tmp_path)
    page = await seen(stage, who="caller")
    assert "How it is" in page
    for unseen in (str(tmp_path), "Webhooks", "Deliveries", "Inject", "Preflight"):
        assert unseen not in page


async def test_the_room_that_the_database_takes_is_told(any_stage: Stage, tmp_path: Path) -> None:
    knows_settings(any_stage, tmp_path)
    sizes = {each.name: each.n_bytes for each in any_stage.services.health.sizes()}
    assert sizes["database"] > 10_000
    assert sizes["journal"] == 0
    assert "Room on the disk" in await seen(any_stage)


async def test_a_webhook_is_added_tested_and_removed(stage: Stage, receiver: Peer) -> None:
    receiver.replies(Reply(500))
    made = await pull(stage, "/webhooks", url=f"{receiver.url}/hook?token=t", kinds="report")
    assert re.search(r"<output data-copied>whsec_[^<]+</output>", made.text)
    assert "hook?token=t" in made.text
    (webhook,) = stage.services.webhooks.all()
    assert webhook["kinds"] == ["report"]
    await pull(stage, f"/webhooks/{webhook['id']}/test")
    await stage.services.webhooks.deliver()
    log = await seen(stage, "/system/deliveries", who="auditor")
    assert "answered 500" in log
    page = await seen(stage)
    assert webhook["url"] in page
    assert "token=t" not in page
    await pull(stage, f"/webhooks/{webhook['id']}/remove")
    page = await seen(stage)
    assert "Nobody outside is told of anything" in page
    assert "1 of those kept in the log have failed for good" in page
    await stage.services.webhooks.close()


async def test_a_webhook_that_goes_nowhere_is_refused(stage: Stage) -> None:
    response = await pull(stage, "/webhooks", url="ftp://example.com")
    assert response.status_code == 422
    assert "must be an http or https address" in response.text


async def test_an_admin_injects_a_fault_and_ends_it(stage: Stage) -> None:
    assert "/system/fault" not in await seen(stage)
    assert "/system/fault" in await seen(stage, who="admin")
    await pull(stage, "/system/fault", who="admin", fault="slow:2000")
    await pull(stage, "/system/fault", who="admin", fault="")
    assert stage.model.faults == ["slow:2000", None]
    assert (await pull(stage, "/system/fault", who="admin", fault="fire")).status_code == 422


async def test_without_drills_no_fault_is_injected(stage: Stage) -> None:
    stage.services.drills = False
    stage.services.health = replace(stage.services.health, drills=False)
    assert "/system/fault" not in await seen(stage, who="admin")
    assert (await pull(stage, "/system/fault", who="admin", fault="hang")).status_code == 403
    assert stage.model.faults == []
