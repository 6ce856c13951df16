"""Is anybody left without an answer, or anything lost, while the database is away?"""

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import PostgresServer
from tests.journey.conftest import Make
from tests.journey.load import Load, eventually, mixed, under_load
from tests.journey.policies import about, rollouts, situation
from tests.journey.server import Server, children, recorded, until, verified

pytestmark = pytest.mark.model

PATIENT_S = 12  # a frozen database is noticed after 6 s or 7
PHASES = {"watched": "shadow", "advised": "advisory", "decided": "enforced"}
ROLLOUTS = rollouts(watched="risk: low", advised="risk: low", decided="risk: low")


@dataclass(frozen=True)
class Outage:
    """A server, how its database goes away, and how it comes back."""

    server: Server
    begin: Callable[[], object]
    end: Callable[[], object]


@pytest.fixture(
    params=[
        "locked",
        pytest.param("stopped", marks=pytest.mark.postgres),
        pytest.param("frozen", marks=pytest.mark.postgres),
    ]
)
def outage(request: pytest.FixtureRequest, make: Make) -> Iterator[Outage]:
    found = request.getfixturevalue(request.param)
    found.server.place(**PHASES)
    found.server.start()
    yield found
    found.server.kill()


@pytest.fixture
def locked(make: Make) -> Iterator[Outage]:
    """Another program holds SQLite's lock."""
    server = make(ROLLOUTS, queue_limit="8")
    opened: list[sqlite3.Connection] = []

    def begin() -> None:
        opened.append(sqlite3.connect(server.data_dir / "phasegate.db", isolation_level=None))
        opened[-1].execute("BEGIN EXCLUSIVE")

    def end() -> None:
        opened.pop().close()

    yield Outage(server, begin, end)
    for connection in opened:
        connection.close()


@pytest.fixture
def stopped(make: Make, postgres_server: PostgresServer, postgres_url: str) -> Iterator[Outage]:
    """PostgreSQL has gone."""
    server = make(ROLLOUTS, queue_limit="8", database_url=postgres_url)
    yield Outage(server, postgres_server.stop, postgres_server.start)
    server.kill()
    postgres_server.ensure_started()


@pytest.fixture
def frozen(make: Make, postgres_server: PostgresServer, postgres_url: str) -> Iterator[Outage]:
    """PostgreSQL keeps its connections and answers nobody."""
    server = make(ROLLOUTS, queue_limit="8", database_url=postgres_url)

    def send(sent: signal.Signals) -> None:
        postmaster = int((postgres_server.directory / "data" / "postmaster.pid").read_text().split()[0])
        for pid in (postmaster, *children(postmaster)):
            os.kill(pid, sent)

    yield Outage(server, lambda: send(signal.SIGSTOP), lambda: send(signal.SIGCONT))
    send(signal.SIGCONT)
    server.kill()


def ledger_is(server: Server, state: str) -> Callable[[], bool]:
    return lambda: bool(server.health()["ledger"] == state)


def journal_size(server: Server) -> int:
    return (server.data_dir / "journal").stat().st_size


async def test_everybody_is_answered_by_the_rules_and_all_of_it_is_in_the_ledger_afterwards(
    outage: Outage,
) -> None:
    server = outage.server
    load = Load(server.port, mixed(*map(about, PHASES)))
    async with under_load(load, 12):
        await eventually(lambda: "model" in by_whom(load, 0), what="a model that answers")
        outage.begin()
        await eventually(ledger_is(server, "journaling"), what="the journal")
        since = len(load.answers)
        await eventually(lambda: len(load.answers) >= since + 300, what="load")
        # At the latest once the snapshot is older than 5 s; a worker that is flooded says so until then.
        await eventually(lambda: "stale_state" in fallbacks(load, since + 12), what="a plane known as stale")
        refused = server.admin.post("/v1/rollouts/decided/rollback", json={"reason": "while it is away"})
        away = len(load.answers)
        outage.end()
        took_s = await eventually(ledger_is(server, "ok"), within_s=20, what="the ledger's return")
        back = len(load.answers)
        await eventually(lambda: "model" in by_whom(load, back), what="a model that answers again")
    assert {answer.status for answer in load.answers} == {200}
    assert (refused.status_code, refused.json()["type"]) == (503, "store-unavailable")
    # A caller of the moment in between may still have been written before the lock.
    during = load.answers[since + 12 : away]
    assert {answer.body["answered_by"] for answer in during} == {"legacy"}
    assert "stale_state" in fallbacks(load, since + 12, away)
    assert max(answer.seconds for answer in load.answers) < PATIENT_S
    assert took_s < 10
    assert journal_size(server) == 0
    assert_all_there(server, load)


def by_whom(load: Load, since: int) -> Counter[str]:
    return Counter(answer.body["answered_by"] for answer in load.answers[since:])


def fallbacks(load: Load, since: int, until: int | None = None) -> set[str | None]:
    """Why the model did not answer, where it should have."""
    answers = load.answers[since:until]
    return {answer.body["fallback_reason"] for answer in answers if answer.body["phase"] == "enforced"}


def assert_all_there(server: Server, load: Load) -> None:
    rows = recorded(server)
    assert len({answer.body["id"] for answer in load.answers}) == len(load.answers)
    assert all(rows[answer.body["id"]]["decision"] == answer.body["decision"] for answer in load.answers)
    assert verified(server).problems == []
    assert server.admin.get("/v1/audit/verify").json()["ok"]


@pytest.mark.parametrize(
    "outage", ["locked", pytest.param("stopped", marks=pytest.mark.postgres)], indirect=True
)
async def test_a_server_killed_in_an_outage_replays_its_journal_at_the_next_start(outage: Outage) -> None:
    server = outage.server
    load = Load(server.port, mixed(*map(about, PHASES)))
    async with under_load(load, 12):
        await eventually(lambda: len(load.answers) >= 50, what="load")
        outage.begin()
        await eventually(ledger_is(server, "journaling"), what="the journal")
        since = len(load.answers)
        await eventually(lambda: len(load.answers) >= since + 300, what="load")
        server.kill()
    assert journal_size(server) > 0
    outage.end()
    server.start()
    until(ledger_is(server, "ok"), within_s=10, what="the replay")
    assert journal_size(server) == 0
    assert_all_there(server, load)
    assert {name: server.phase(name) for name in PHASES} == PHASES
    assert server.decide(situation("decided"))["phase"] == "enforced"


def test_a_server_that_is_told_to_end_in_an_outage_ends_cleanly(outage: Outage) -> None:
    server = outage.server
    outage.begin()
    server.decide(situation("watched"))
    until(ledger_is(server, "journaling"), what="the journal")
    assert server.stop() == 0
    assert "Traceback" not in server.words()
    assert [event for event in server.log() if "Traceback" in str(event.get("exception"))] == []
    outage.end()
    server.start()
    until(ledger_is(server, "ok"), within_s=10, what="the replay")
    assert verified(server).ok
