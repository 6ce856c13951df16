"""Laws of several versions beside each other, on the real embedded model."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.domain.advisory import Advisory, Outcome
from app.engines.model.engine import ModelState
from app.engines.model.fleet import Fleet
from app.engines.model.link import Patience
from app.engines.model.local import LocalModel
from app.engines.model.memory import MIB
from app.engines.model.prompt import load_prompt
from app.engines.model.supervisor import ModelSupervisor
from app.engines.model.version import ModelFile, ModelVersion, Remote
from app.engines.model.wire import Priority
from tests.engines.model.conftest import POLICIES, situation, until

pytestmark = pytest.mark.model

ASKED = situation(resource="repo:web", details="reads the change log", recent_history="no incident")
StartFleet = Callable[..., Awaitable[Fleet]]


@pytest.fixture(scope="session")
def other_prompt(version: ModelVersion, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """The embedded version with another prompt: it shares the weights."""
    text = (POLICIES / version.prompt).read_text(encoding="utf-8")
    path = tmp_path_factory.mktemp("prompts") / "other.md"
    path.write_text(text.replace("Decide:", "Decide for this repository:"), encoding="utf-8")
    sha256 = load_prompt(path).sha256
    return msgspec.structs.replace(version, id="other-prompt", prompt=str(path), prompt_sha256=sha256)


@pytest.fixture(scope="session")
def other_weights(version: ModelVersion) -> ModelVersion:
    """The embedded model without its adapter: it needs a worker of its own."""
    return msgspec.structs.replace(version, id="other-weights", adapter=None)


@pytest.fixture
async def fleet(
    version: ModelVersion, other_prompt: ModelVersion, other_weights: ModelVersion, cache_dir: Path
) -> AsyncIterator[StartFleet]:
    """Starts fleets whose default has loaded; they stop with the test."""
    started: list[Fleet] = []

    async def start(*more: ModelVersion, **settings: Any) -> Fleet:
        fleet = Fleet(
            (version, other_prompt, other_weights, *more),
            default=version,
            policies_dir=POLICIES,
            cache_dir=cache_dir,
            drills=True,
            patience=Patience(grace_s=0.4),
            **{"memory_bytes": 8192 * MIB, **settings},
        )
        started.append(fleet)
        await fleet.start()
        assert await ready(fleet, version)
        return fleet

    yield start
    for one in started:
        await one.stop()


def supervisor(fleet: Fleet, version: ModelVersion) -> ModelSupervisor:
    model = fleet.of(version.id)
    assert isinstance(model, ModelSupervisor)
    return model


def exists(pid: int | None) -> bool:
    return Path(f"/proc/{pid}").exists()


async def ready(fleet: Fleet, version: ModelVersion) -> bool:
    return await supervisor(fleet, version).wait_ready(60)


async def ask(fleet: Fleet, version: ModelVersion) -> Advisory:
    return await fleet.of(version.id).advise(ASKED, priority=Priority.BINDING, deadline_s=10.0)


async def test_versions_with_the_same_weights_share_a_worker_and_answer_as_if_alone(
    fleet: StartFleet, version: ModelVersion, other_prompt: ModelVersion, local: LocalModel, cache_dir: Path
) -> None:
    both = await fleet()
    await both.want([other_prompt.id])
    assert await ready(both, other_prompt)
    assert both.of(version.id).status.pid == both.of(other_prompt.id).status.pid
    first, second, again = await ask(both, version), await ask(both, other_prompt), await ask(both, version)
    assert first.probabilities == again.probabilities == local.advise(ASKED).probabilities
    with LocalModel.open(other_prompt, policies_dir=POLICIES, cache_dir=cache_dir) as alone:
        assert second.probabilities == alone.advise(ASKED).probabilities
    assert second.probabilities != first.probabilities
    assert second.version == other_prompt.id


async def test_other_weights_get_a_worker_of_their_own_which_starts_behind_what_serves(
    fleet: StartFleet, version: ModelVersion, other_weights: ModelVersion
) -> None:
    both = await fleet()
    pid = both.default.status.pid
    await both.want([other_weights.id])
    assert both.of(other_weights.id).status.state is ModelState.STARTING
    assert (await ask(both, version)).outcome is Outcome.OK
    assert await ready(both, other_weights)
    assert both.default.status.pid == pid != both.of(other_weights.id).status.pid
    assert (await ask(both, other_weights)).started


async def test_a_crash_brings_back_all_versions_of_the_worker(
    fleet: StartFleet, version: ModelVersion, other_prompt: ModelVersion
) -> None:
    both = await fleet()
    await both.want([other_prompt.id])
    assert await ready(both, other_prompt)
    before = [(await ask(both, one)).probabilities for one in (version, other_prompt)]
    pid = both.default.status.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: both.default.status.pid not in (None, pid))
    assert await ready(both, version)
    assert await ready(both, other_prompt)
    assert [(await ask(both, one)).probabilities for one in (version, other_prompt)] == before


async def test_what_nobody_wants_is_let_go_and_nobody_else_notices(
    fleet: StartFleet, version: ModelVersion, other_prompt: ModelVersion, other_weights: ModelVersion
) -> None:
    three = await fleet()
    await three.want([other_prompt.id, other_weights.id])
    assert await ready(three, other_prompt)
    assert await ready(three, other_weights)
    pid, gone = three.default.status.pid, three.of(other_weights.id).status.pid
    await three.want([version.id])
    assert three.default.status.pid == pid
    assert not exists(gone)
    assert [model.version_id for model in three.loaded] == [version.id]
    for left in (other_prompt, other_weights):
        assert (await ask(three, left)).outcome is Outcome.UNAVAILABLE
        assert "no rollout" in (three.of(left.id).status.error or "")
    assert (await ask(three, version)).outcome is Outcome.OK


async def test_a_version_that_takes_another_s_place_takes_its_worker_over(
    fleet: StartFleet, other_prompt: ModelVersion, other_weights: ModelVersion
) -> None:
    heir = msgspec.structs.replace(other_prompt, id="heir", adapter=None)
    both = await fleet(heir)
    await both.want([other_weights.id])
    assert await ready(both, other_weights)
    pid = both.of(other_weights.id).status.pid
    await both.want([heir.id])
    assert await ready(both, heir)
    assert both.of(heir.id).status.pid == pid
    assert (await ask(both, other_weights)).outcome is Outcome.UNAVAILABLE


async def test_what_stays_wanted_answers_at_once_when_roles_change(
    fleet: StartFleet, version: ModelVersion, other_weights: ModelVersion
) -> None:
    both = await fleet()
    await both.want([other_weights.id, version.id])
    assert await ready(both, other_weights)
    pids = [model.status.pid for model in both.loaded]
    await both.want([version.id, other_weights.id])
    assert [model.status.pid for model in both.loaded] == pids
    assert all(model.is_ready for model in both.loaded)


async def test_beyond_the_memory_limit_the_least_important_goes_without_and_says_so(
    fleet: StartFleet, version: ModelVersion, other_prompt: ModelVersion, other_weights: ModelVersion
) -> None:
    small = await fleet(memory_bytes=1)
    await small.want([other_prompt.id, other_weights.id])
    assert await ready(small, other_prompt), "what shares the default's worker takes no more memory"
    assert (await ask(small, version)).outcome is Outcome.OK
    refused = small.of(other_weights.id)
    assert (await ask(small, other_weights)).outcome is Outcome.UNAVAILABLE
    assert "PHASEGATE_MODEL_MEMORY_MB" in (refused.status.error or "")
    assert refused in small.loaded


async def test_an_unknown_version_is_unavailable_until_it_is_declared(
    fleet: StartFleet, other_prompt: ModelVersion
) -> None:
    later = msgspec.structs.replace(other_prompt, id="later")
    one = await fleet()
    await one.want([later.id])
    assert "not declared" in (one.of(later.id).status.error or "")
    one.declare(later)
    await one.want([later.id])
    assert await ready(one, later)


async def test_a_version_that_cannot_be_taken_in_leaves_the_others_alone(
    fleet: StartFleet, version: ModelVersion, other_prompt: ModelVersion
) -> None:
    broken = msgspec.structs.replace(version, id="broken", prompt="prompts/none.md")
    both = await fleet(broken)
    await both.want([broken.id, other_prompt.id])
    assert not await ready(both, broken)
    assert await ready(both, other_prompt)
    assert "none.md" in (both.of(broken.id).status.error or "")
    assert both.of(broken.id).status.state is ModelState.DOWN
    assert (await ask(both, version)).outcome is Outcome.OK
    assert both.default.status.restarts == 0


async def test_a_version_whose_file_is_missing_says_which(fleet: StartFleet, version: ModelVersion) -> None:
    lost = msgspec.structs.replace(
        version, id="lost", model=ModelFile(path="versions/none.gguf"), adapter=None
    )
    both = await fleet(lost)
    await both.want([lost.id])
    assert not await ready(both, lost)
    assert "none.gguf" in (both.of(lost.id).status.error or "")


async def test_the_circuit_of_one_version_leaves_the_others_closed(
    fleet: StartFleet, version: ModelVersion, other_prompt: ModelVersion
) -> None:
    both = await fleet()
    await both.want([other_prompt.id])
    assert await ready(both, other_prompt)
    await both.default.inject("garbage")
    while not both.of(other_prompt.id).circuit_open:
        assert (await ask(both, other_prompt)).outcome is Outcome.MALFORMED
    assert not both.default.circuit_open
    await both.default.inject(None)
    assert (await ask(both, version)).outcome is Outcome.OK


async def test_a_version_on_another_server_takes_no_memory_here(
    fleet: StartFleet, version: ModelVersion
) -> None:
    remote = Remote(url="http://127.0.0.1:9/v1", model="far")
    far = msgspec.structs.replace(version, id="far", model=ModelFile(remote=remote), adapter=None)
    both = await fleet(far, memory_bytes=1)
    await both.want([far.id])
    assert both.of(far.id).status.model == "far"
    assert both.default.status.pid is not None
    assert both.of(far.id).status.pid is None
