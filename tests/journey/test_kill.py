"""What is left of a server that was killed in full load, or told to end?"""

import pytest

from tests.journey.conftest import Make
from tests.journey.load import Load, eventually, mixed, under_load
from tests.journey.policies import about, rollouts, situation
from tests.journey.server import Server, chains, free_port, is_running, recorded, until, verified

pytestmark = pytest.mark.model

CALLERS = 300
PHASES = {"watched": "shadow", "advised": "advisory", "decided": "enforced"}


@pytest.fixture(scope="module")
def server(make: Make) -> Server:
    # A short queue, so that nobody waits for the model until a deadline: time-outs would roll back.
    made = make(rollouts(watched="risk: low", advised="risk: low", decided="risk: high"), queue_limit="8")
    made.place(**PHASES)
    return made


async def test_a_server_killed_in_full_load_loses_no_answer_and_starts_again_at_once(server: Server) -> None:
    server.start()
    worker = server.worker
    load = Load(server.port, mixed(*map(about, PHASES)))
    async with under_load(load, CALLERS):
        await eventually(lambda: len(load.answers) >= 2_000 and bool(by_model(load)), what="full load")
        server.kill()
    assert {answer.status for answer in load.answers} == {200}
    until(lambda: not is_running(worker), within_s=2, what="the worker's end")

    server.start()
    rows = recorded(server)
    assert all(rows[answer.body["id"]]["decision"] == answer.body["decision"] for answer in load.answers)
    assert server.admin.get("/v1/audit/verify").json()["ok"]
    assert verified(server).ok
    assert {name: server.phase(name) for name in PHASES} == PHASES
    assert [server.decide(situation(name))["phase"] for name in PHASES] == list(PHASES.values())
    assert server.decide(situation("decided"))["answered_by"] == "model"
    server.kill()


async def test_sigterm_ends_the_server_cleanly_with_callers_and_followers(server: Server) -> None:
    server.start()
    worker, process = server.worker, server.process
    assert process is not None
    load = Load(server.port, mixed(*map(about, PHASES)))
    with server.admin.stream("GET", "/v1/events"):
        async with under_load(load, 20):
            await eventually(lambda: len(load.answers) >= 100, what="load")
            process.terminate()
            await eventually(lambda: process.poll() is not None, within_s=8, what="the end")
    assert process.returncode == 0, server.words()
    until(lambda: not is_running(worker), within_s=2, what="the worker's end")
    assert "Traceback" not in server.words()
    events = server.log()
    assert events[-1]["event"] == "server_stopped"
    assert [event for event in events if event["level"] == "error"] == []
    assert {answer.body["id"] for answer in load.answers if answer.status == 200} <= recorded(server).keys()
    assert verified(server).ok


def test_another_port_goes_on_with_the_same_chain(server: Server) -> None:
    server.start()
    server.decide(situation("watched"))
    server.kill()
    instances = {name for name in chains(server) if name != "set-up"}
    server.port = free_port()
    server.start()
    server.decide(situation("watched"))
    server.kill()
    assert {name for name in chains(server) if name != "set-up"} == instances
    assert len(instances) == 1


def by_model(load: Load) -> list[str]:
    return [answer.body["id"] for answer in load.answers if answer.body.get("answered_by") == "model"]
