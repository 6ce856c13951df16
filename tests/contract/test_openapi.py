"""Does anything that fits the OpenAPI document make the server fail?"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok

from app.store.database import Database
from tests.services.plane import Stage, opened


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One server for all examples: what one leaves behind, the next must bear."""
    directory = tmp_path_factory.mktemp("openapi")
    database = Database(f"sqlite:///{directory / 'plane.db'}")
    database.migrate()
    with asyncio.Runner() as runner:
        opening = opened(database, directory)
        stage = runner.run(opening.__aenter__())
        stage.services.notices.close()  # or whoever follows the events would do so for ever
        yield stage
        runner.run(opening.__aexit__(None, None, None))
    database.close()


EXAMPLES = settings(
    max_examples=12,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_nothing_that_fits_the_document_is_a_500(served: Stage) -> None:
    document = schemathesis.openapi.from_asgi("/schema/openapi.json", served.application)
    headers = {"Authorization": f"Bearer {served.keys['admin'][1]}"}
    tried = 0
    for found in document.get_all_operations():
        assert isinstance(found, Ok)

        @EXAMPLES
        @given(found.ok().as_strategy())
        def holds(case: Any) -> None:
            response = case.call(headers=headers)
            assert response.status_code < 500, response.text
            if response.status_code >= 400:
                assert response.json()["request_id"] == response.headers["x-request-id"][0]

        holds()
        tried += 1
    assert tried > 30
