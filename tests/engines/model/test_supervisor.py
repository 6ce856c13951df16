"""Laws of the worker as the web process sees it, on the real embedded model."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from app.domain.advisory import Advisory, Outcome
from app.engines.model.breaker import CircuitBreaker
from app.engines.model.engine import ModelState
from app.engines.model.link import Patience
from app.engines.model.local import LocalModel
from app.engines.model.supervisor import ModelSupervisor
from app.engines.model.version import ModelFile, ModelVersion
from app.engines.model.wire import Priority
from app.errors import Forbidden, SettingsError
from tests.engines.model.conftest import POLICIES, Start, situation, until

pytestmark = pytest.mark.model

ASKED = situation(resource="repo:web", details="reads the change log", recent_history="no incident")


async def ask(
    model: ModelSupervisor, priority: Priority = Priority.BINDING, *, deadline_s: float = 10.0
) -> Advisory:
    return await model.advise(ASKED, priority=priority, deadline_s=deadline_s)


def started(model: ModelSupervisor) -> int:
    return model._link._requests.started


async def in_flight(
    model: ModelSupervisor, priority: Priority = Priority.BINDING, *, deadline_s: float = 10.0
) -> asyncio.Task[Advisory]:
    """A request whose computation has begun."""
    task = asyncio.create_task(ask(model, priority, deadline_s=deadline_s))
    await until(lambda: started(model) > 0)
    return task


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def open_files(pid: int | None) -> set[str]:
    """What a process holds open, as `socket:[inode]`, `pipe:[inode]` or a path."""
    return {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}


async def test_the_worker_answers_as_the_model_in_process_does(
    model: ModelSupervisor, local: LocalModel
) -> None:
    ours, theirs = await ask(model), local.advise(ASKED)
    assert ours.outcome is Outcome.OK
    assert (ours.decision, ours.probabilities, ours.coverage) == (
        theirs.decision,
        theirs.probabilities,
        theirs.coverage,
    )
    assert ours.confidence == theirs.confidence
    assert model.status.state is ModelState.READY
    assert model.status.sha256 == local.sha256


async def test_a_crowd_changes_no_bit(model: ModelSupervisor) -> None:
    alone = await ask(model)
    crowd = await asyncio.gather(
        *(ask(model, priority, deadline_s=30) for priority in list(Priority)[:3] * 2)
    )
    assert {one.probabilities for one in crowd} == {alone.probabilities}


async def test_starting_returns_at_once_and_nothing_is_asked_before_the_model_has_loaded(
    start: Start,
) -> None:
    model = await start()
    assert model.status.state is ModelState.STARTING
    assert (await ask(model)).outcome is Outcome.UNAVAILABLE
    assert await model.wait_ready(60)
    assert model.status.loaded_once


async def test_a_killed_worker_answers_unavailable_and_is_back_within_seconds(model: ModelSupervisor) -> None:
    await model.inject("slow:5000")
    task = await in_flight(model)
    pid = model.status.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    advisory = await task
    assert (advisory.outcome, advisory.started) == (Outcome.UNAVAILABLE, True)
    await model.inject(None)
    assert await model.wait_ready(10)
    assert (await ask(model)).outcome is Outcome.OK
    assert model.status.restarts == 1
    assert model.status.pid != pid


async def test_a_crash_is_unavailable_and_leaves_its_cause_in_the_status(start: Start) -> None:
    model = await start(patience=Patience(backoff_s=(60.0,)))
    assert await model.wait_ready(60)
    await model.inject("crash")
    assert (await ask(model)).outcome is Outcome.UNAVAILABLE
    await until(lambda: model.status.error is not None)
    assert model.status.state is ModelState.DOWN
    assert "signal 6" in (model.status.error or "")


async def test_a_hanging_worker_times_out_and_is_replaced(model: ModelSupervisor) -> None:
    pid = model.status.pid
    assert pid is not None
    await model.inject("hang")
    advisory = await ask(model, deadline_s=0.2)
    assert (advisory.outcome, advisory.started) == (Outcome.TIMEOUT, True)
    await until(lambda: model.status.restarts == 1)
    assert not alive(pid)
    await model.inject(None)
    assert await model.wait_ready(10)
    await until(lambda: model.status.queue_depth == 0)
    assert (await ask(model)).outcome is Outcome.OK


async def test_garbage_is_malformed_and_the_next_answer_is_not(model: ModelSupervisor) -> None:
    await model.inject("garbage")
    advisory = await ask(model)
    assert (advisory.outcome, advisory.decision, advisory.started) == (Outcome.MALFORMED, None, True)
    await model.inject(None)
    assert (await ask(model)).outcome is Outcome.OK
    assert model.status.restarts == 0


async def test_a_slow_model_is_stopped_at_the_deadline(model: ModelSupervisor) -> None:
    await model.inject("slow:60000")
    advisory = await ask(model, deadline_s=0.2)
    assert (advisory.outcome, advisory.started) == (Outcome.TIMEOUT, True)
    assert 190 <= advisory.latency_ms < 1000
    await until(lambda: model.status.queue_depth == 0)
    assert model.status.restarts == 0


async def test_a_request_that_waits_past_its_deadline_was_never_started(model: ModelSupervisor) -> None:
    await model.inject("slow:500")
    first = await in_flight(model)
    second = await ask(model, deadline_s=0.1)
    assert (second.outcome, second.started) == (Outcome.TIMEOUT, False)
    assert (await first).outcome is Outcome.OK
    assert model.status.circuit_open is False


async def test_a_deadline_that_has_passed_asks_nothing(model: ModelSupervisor) -> None:
    advisory = await ask(model, deadline_s=-1.0)
    assert (advisory.outcome, advisory.started) == (Outcome.TIMEOUT, False)


async def test_binding_work_overtakes_running_shadow_work_which_still_gets_its_same_answer(
    model: ModelSupervisor,
) -> None:
    undisturbed = await ask(model)
    await model.inject("slow:300")
    order: list[Priority] = []

    async def noted(priority: Priority) -> Advisory:
        advisory = await ask(model, priority, deadline_s=30)
        order.append(priority)
        return advisory

    shadows = [asyncio.create_task(noted(Priority.SHADOW)) for _ in range(2)]
    await until(lambda: started(model) > 0)
    await noted(Priority.BINDING)
    assert order == [Priority.BINDING]
    await model.inject(None)
    for advisory in await asyncio.gather(*shadows):
        assert advisory.probabilities == undisturbed.probabilities


async def test_shadow_work_fills_half_of_the_queue_and_binding_work_the_rest(start: Start) -> None:
    model = await start(queue_limit=4)
    assert await model.wait_ready(60)
    await model.inject("slow:60000")
    tasks = [asyncio.create_task(ask(model, Priority.SHADOW, deadline_s=2)) for _ in range(2)]
    await until(lambda: model.status.queue_depth == 2)
    refused = await ask(model, Priority.SHADOW)
    assert (refused.outcome, refused.started) == (Outcome.OVERLOADED, False)
    tasks += [asyncio.create_task(ask(model, deadline_s=2)) for _ in range(2)]
    await until(lambda: model.status.queue_depth == 4)
    assert (await ask(model)).outcome is Outcome.OVERLOADED
    assert {one.outcome for one in await asyncio.gather(*tasks)} == {Outcome.TIMEOUT}


async def test_a_caller_who_goes_away_frees_the_worker(model: ModelSupervisor) -> None:
    await model.inject("slow:60000")
    task = await in_flight(model, deadline_s=60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await model.inject(None)
    await until(lambda: model.status.queue_depth == 0)
    assert (await ask(model)).outcome is Outcome.OK


async def test_the_circuit_opens_on_failures_and_one_trial_closes_it(start: Start) -> None:
    model = await start(breaker=CircuitBreaker(threshold=2, pause_s=0.3))
    assert await model.wait_ready(60)
    await model.inject("garbage")
    for _ in range(2):
        assert (await ask(model)).outcome is Outcome.MALFORMED
    assert model.circuit_open
    refused = await ask(model)
    assert (refused.outcome, refused.started) == (Outcome.UNAVAILABLE, False)
    await model.inject(None)
    await until(lambda: not model.circuit_open)
    assert (await ask(model)).outcome is Outcome.OK
    assert not model.status.circuit_open


async def test_what_a_caller_writes_cannot_open_the_circuit(start: Start, version: ModelVersion) -> None:
    stern = msgspec.structs.replace(version.limits, coverage_at_least=1.0)
    model = await start(
        msgspec.structs.replace(version, limits=stern), breaker=CircuitBreaker(threshold=1, pause_s=60)
    )
    assert await model.wait_ready(60)
    advisory = await ask(model)
    assert (advisory.outcome, advisory.decision) == (Outcome.MALFORMED, None)
    assert not model.circuit_open


async def test_a_model_that_cannot_load_says_why_and_is_not_tried_again_at_once(
    start: Start, version: ModelVersion
) -> None:
    lost = msgspec.structs.replace(version, model=ModelFile(path="versions/none.gguf"))
    model = await start(lost)
    assert not await model.wait_ready(60)
    await until(lambda: model.status.state is ModelState.DOWN)
    assert "PHASEGATE_MODEL_PATH" in (model.status.error or "")
    assert model.status.restarts == 0
    assert not model.status.loaded_once
    assert (await ask(model)).outcome is Outcome.UNAVAILABLE


async def test_the_reasons_come_after_the_answer_and_name_fields(model: ModelSupervisor) -> None:
    advisory = await ask(model)
    reasoning = await model.explain(ASKED, advisory)
    assert reasoning.attributions is not None
    assert {one.field for one in reasoning.attributions} >= {"action_type", "t3_tensor", "details"}
    assert reasoning.text.startswith("allow")


async def test_binding_work_overtakes_an_explanation_which_is_then_finished(model: ModelSupervisor) -> None:
    advisory = await ask(model)
    undisturbed = await model.explain(ASKED, advisory)
    task = asyncio.create_task(model.explain(ASKED, advisory))
    await until(lambda: started(model) > 0)
    assert (await ask(model)).outcome is Outcome.OK
    assert not task.done()
    assert await task == undisturbed


async def test_reasons_that_cannot_be_found_are_said_to_be_unknown(start: Start) -> None:
    model = await start(explain_deadline_s=0.2)
    assert await model.wait_ready(60)
    advisory = await ask(model)
    await model.inject("slow:60000")
    late = await model.explain(ASKED, advisory)
    assert late.attributions is None
    assert late.text.startswith("allow")
    await model.stop()
    assert "unavailable" in (await model.explain(ASKED, advisory)).text


async def test_faults_are_refused_where_drills_are_not_allowed(
    model: ModelSupervisor, version: ModelVersion, cache_dir: Path
) -> None:
    with pytest.raises(SettingsError, match="PHASEGATE_DRILLS"):
        ModelSupervisor(version, cache_dir=cache_dir, policies_dir=POLICIES, fault="hang")
    calm = ModelSupervisor(version, cache_dir=cache_dir, policies_dir=POLICIES)
    with pytest.raises(Forbidden):
        await calm.inject("hang")
    with pytest.raises(SettingsError, match="PHASEGATE_MODEL_FAULT"):
        await model.inject("explode")


async def test_stopping_leaves_no_process_and_answers_what_was_asked(model: ModelSupervisor) -> None:
    await model.inject("slow:60000")
    task = await in_flight(model)
    pid = model.status.pid
    assert pid is not None
    await model.stop()
    assert (await task).outcome is Outcome.UNAVAILABLE
    assert not alive(pid)
    assert model.status.state is ModelState.DOWN


async def test_stopping_while_a_worker_is_being_started_leaves_no_process(start: Start) -> None:
    model = await start()
    await asyncio.sleep(0)  # one turn of the loop: it has been spawned and not heard
    pid = model.status.pid
    assert pid is not None
    await model.stop()
    assert not alive(pid)
    assert model.status.pid is None


async def test_the_worker_inherits_nothing_but_its_socket(model: ModelSupervisor) -> None:
    assert model.status.pid is not None
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.set_inheritable(True)
        pid = model.status.pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: model.status.pid not in (None, pid))
        assert await model.wait_ready(10)
        shared = open_files(model.status.pid) & open_files(os.getpid())
    assert not [name for name in shared if name.startswith(("socket:", "pipe:"))]


async def test_the_worker_keeps_off_the_first_core_and_is_niced(model: ModelSupervisor) -> None:
    pid = model.status.pid
    assert pid is not None
    cores = sorted(os.sched_getaffinity(0))
    assert os.sched_getaffinity(pid) == set(cores[1:] or cores)
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)


PARENT = """
import asyncio, structlog, sys
from pathlib import Path
from app.engines.model.supervisor import ModelSupervisor
from app.engines.model.version import choose_version, load_versions

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main(policies, cache):
    model = ModelSupervisor(choose_version(load_versions(policies)), cache_dir=cache, policies_dir=policies)
    await model.start()
    print(await model.wait_ready(60), model.status.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


async def test_the_worker_ends_when_its_parent_is_killed(cache_dir: Path) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - killed below, never waited for in vain
        [sys.executable, "-c", PARENT, str(POLICIES), str(cache_dir)],
        stdout=subprocess.PIPE,
        cwd=POLICIES.parent,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        ready, pid = (await asyncio.to_thread(parent.stdout.readline)).split()
        assert ready == "True"
        assert alive(int(pid))
        parent.kill()
    await until(lambda: not alive(int(pid)))
