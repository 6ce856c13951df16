from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.journey.policies import LEGACY
from tests.journey.server import Server

Make = Callable[..., Server]


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted models, made once."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[Make]:
    """Makes servers that end with the module."""
    made: list[Server] = []

    def make_one(rollouts: str, *, legacy: str = LEGACY, **settings: str) -> Server:
        folder = tmp_path_factory.mktemp("server")
        server = Server(folder, cache_dir, rollouts=rollouts, legacy=legacy, **settings)
        made.append(server)
        return server

    yield make_one
    for server in made:
        server.kill()
