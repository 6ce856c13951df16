from collections.abc import Iterator

import pytest

from tests.peer import Peer, serving


@pytest.fixture
def peer() -> Iterator[Peer]:
    with serving() as running:
        yield running
