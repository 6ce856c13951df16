import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.domain.situation import Situation, parse_situation
from app.engines.model.link import Patience
from app.engines.model.local import LocalModel
from app.engines.model.prompt import Line, Prompt, situation_text
from app.engines.model.supervisor import ModelSupervisor
from app.engines.model.version import ModelVersion, choose_version, load_versions

POLICIES = Path(__file__).parents[3] / "policies"

Start = Callable[..., Awaitable[ModelSupervisor]]


def situation(**members: Any) -> Situation:
    trust = {"competence": 0.81, "reliability": 0.92, "integrity": 0.97}
    raw = {"action_type": "read", "actor_role": "developer", "actor_id": "ann", "t3_tensor": trust, **members}
    return parse_situation(raw)


def render(prompt: Prompt, lines: Sequence[Line]) -> str:
    """The whole prompt as the model reads it."""
    return prompt.prefix + situation_text(lines) + prompt.suffix


async def until(condition: Callable[[], bool], *, timeout_s: float = 15.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is awaited is another process's
            await asyncio.sleep(0.005)


@pytest.fixture(scope="session")
def version() -> ModelVersion:
    return choose_version(load_versions(POLICIES))


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def local(version: ModelVersion, cache_dir: Path) -> Iterator[LocalModel]:
    with LocalModel.open(version, policies_dir=POLICIES, cache_dir=cache_dir) as model:
        yield model


@pytest.fixture
async def start(version: ModelVersion, cache_dir: Path) -> AsyncIterator[Start]:
    """Starts supervisors that stop with the test."""
    started: list[ModelSupervisor] = []

    async def start_one(declared: ModelVersion = version, **settings: Any) -> ModelSupervisor:
        settings = {"drills": True, "patience": Patience(grace_s=0.4), **settings}
        model = ModelSupervisor(declared, cache_dir=cache_dir, policies_dir=POLICIES, **settings)
        started.append(model)
        await model.start()
        return model

    yield start_one
    for model in started:
        await model.stop()


@pytest.fixture
async def model(start: Start) -> ModelSupervisor:
    """A supervisor whose worker has loaded."""
    started = await start()
    assert await started.wait_ready(60)
    return started
