"""Does what people decide hold at once, whatever happens at the same time?"""

import threading

import pytest

from tests.journey.conftest import Make
from tests.journey.policies import rollouts, situation
from tests.journey.promotion import READY, assert_one_won, promotions
from tests.journey.server import Document, Server, until

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def server(make: Make) -> Server:
    made = make(rollouts(judged="risk: high", ready=READY))
    made.place(judged="enforced")
    made.start()
    return made


async def test_of_many_promotions_at_once_exactly_one_wins(server: Server) -> None:
    assert_one_won(server, "ready", await promotions([server], "ready"))
    assert server.phase("ready") == "advisory"
    assert server.decide(situation("ready"))["phase"] == "advisory"


def test_a_verdict_that_lands_while_the_model_answers_makes_the_rules_answer(server: Server) -> None:
    wrong = server.decide(situation("judged"))
    assert (wrong["answered_by"], wrong["decision"]) == ("model", "allow"), wrong

    until(lambda: queue(server) == 0, what="the reasons of the first answer")
    server.fault("slow:30000")
    answers: list[Document] = []
    asking = threading.Thread(target=lambda: answers.append(server.decide(situation("judged", 1))))
    asking.start()
    until(lambda: queue(server) == 1, what="the model's work")
    with server.client(server.key("reviewer")) as reviewer:
        said = reviewer.post(f"/v1/decisions/{wrong['id']}/report", json={"decision": "deny"})
    assert said.json()["rollback"]["kind"] == "rollback"
    after = server.decide(situation("judged", 2))
    assert (after["answered_by"], after["phase"]) == ("legacy", "advisory")
    assert not answers
    server.fault(None)
    asking.join()
    assert answers[0]["phase"] == "enforced"
    assert (answers[0]["answered_by"], answers[0]["fallback_reason"]) == ("legacy", "stale_state")
    assert answers[0]["advisory"]["outcome"] == "ok"


def queue(server: Server) -> int:
    return int(server.health()["model"]["queue"])
