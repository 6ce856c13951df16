"""Laws of the worker's process, spoken to over its own socket."""

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from app.domain.advisory import Outcome
from app.engines.model.local import LocalModel
from app.engines.model.process import WorkerProcess
from app.engines.model.prompt import write
from app.engines.model.version import ModelVersion
from app.engines.model.wire import (
    NO_REQUEST,
    Answer,
    Ask,
    Drop,
    Load,
    Loaded,
    Prepare,
    Prepared,
    Priority,
    Progress,
)
from tests.engines.model.conftest import POLICIES, situation
from tests.engines.model.peer import Peer

pytestmark = pytest.mark.model

ROUTINE = write(situation(resource="repo:web", details="reads the change log"))


@contextlib.asynccontextmanager
async def worker(version: ModelVersion, cache_dir: Path) -> AsyncIterator[Peer]:
    """A worker that has loaded one version."""
    process = WorkerProcess.spawn()
    peer = Peer(process.connection)
    try:
        peer.say(NO_REQUEST, Load((version,), str(POLICIES), str(cache_dir), None, None))
        _, loaded = peer.hear()
        assert isinstance(loaded, Loaded)
        yield peer
    finally:
        peer.close()
        await process.end()


def ask(version_id: str, priority: Priority = Priority.BINDING, *, details: str | None = None) -> Ask:
    lines = ROUTINE if details is None else write(situation(details=details))
    return Ask(priority, time.monotonic() + 300, lines, version_id)


async def test_a_version_is_taken_in_asked_and_dropped_beside_the_first(
    version: ModelVersion, cache_dir: Path, local: LocalModel
) -> None:
    expected = local._scorer.score(ROUTINE).probabilities
    twin = msgspec.structs.replace(version, id="twin")
    async with worker(version, cache_dir) as peer:
        peer.say(1, ask("twin"))
        peer.say(NO_REQUEST, Prepare(twin))
        assert peer.answers(1) == [(1, Answer(Outcome.UNAVAILABLE, started=False))]
        assert peer.hear() == (NO_REQUEST, Prepared("twin"))
        peer.say(2, ask("twin"))
        peer.say(3, ask(version.id))
        assert [answer.probabilities for _, answer in peer.answers(2)] == [expected, expected]
        peer.say(NO_REQUEST, Drop("twin"))
        peer.say(4, ask("twin", Priority.SHADOW))
        peer.say(5, ask(version.id, Priority.SHADOW))
        answers = dict(peer.answers(2))
    assert answers[4].outcome is Outcome.UNAVAILABLE
    assert answers[5].probabilities == expected


async def test_a_version_that_cannot_be_taken_in_is_answered_with_the_reason(
    version: ModelVersion, cache_dir: Path
) -> None:
    lost = msgspec.structs.replace(version, id="lost", prompt="prompts/none.md")
    async with worker(version, cache_dir) as peer:
        peer.say(NO_REQUEST, Prepare(lost))
        _, refused = peer.hear()
        peer.say(1, ask(version.id))
        ((_, answer),) = peer.answers(1)
    assert isinstance(refused, Prepared)
    assert refused.error is not None
    assert "none.md" in refused.error
    assert answer.outcome is Outcome.OK


async def test_binding_work_overtakes_observations_that_are_computed_together_and_all_are_answered(
    version: ModelVersion, cache_dir: Path
) -> None:
    batching = msgspec.structs.replace(
        version, decoding=msgspec.structs.replace(version.decoding, shadow_batch=8)
    )
    order: list[int] = []
    outcomes: set[Outcome] = set()
    async with worker(batching, cache_dir) as peer:
        for request in range(1, 9):
            peer.say(request, ask(version.id, Priority.SHADOW, details=f"{request} " + "word " * 60))
        started: set[int] = set()
        while len(order) < 9:
            request, message = peer.hear()
            if isinstance(message, Progress) and request not in started:
                started.add(request)
                if len(started) == 8:
                    peer.say(9, ask(version.id))
            if isinstance(message, Answer):
                order.append(request)
                outcomes.add(message.outcome)
    assert order.index(9) <= 1
    assert outcomes <= {Outcome.OK, Outcome.UNSURE}
    assert sorted(order) == list(range(1, 10))
