"""Whatever the model does, is the caller answered, in time, and never by its mistake?"""

import asyncio
import itertools
import os
import signal
from collections import Counter
from typing import Any

import pytest

from tests.journey.conftest import Make
from tests.journey.load import Answered, Load, eventually, mixed, under_load
from tests.journey.policies import WATCHED, about, rollouts, situation
from tests.journey.server import PATIENCE_S, Document, Server, is_running, until

pytestmark = pytest.mark.model

DEADLINE_S, SLACK_S = 1.0, 2.0  # of a watched rollout; of a machine that others use too
QUEUE = 8
_numbers = itertools.count()
PROVOKED = {"timeout", "malformed", "unsure", "overloaded", "oversize"}


@pytest.fixture(scope="module")
def running(make: Make) -> Server:
    server = make(
        rollouts(
            calm="risk: low",
            seen="risk: low",
            advised="risk: low",
            guarded="risk: high",
            crashes="risk: high, deadline_ms: 1000",
            **dict.fromkeys(("hangs", "garbles", "dawdles"), f"risk: high, {WATCHED}"),
        ),
        guardrail_interval_s="0.5",
        queue_limit=str(QUEUE),
    )
    enforced = ("calm", "guarded", "hangs", "garbles", "dawdles", "crashes")
    server.place(advised="advisory", **dict.fromkeys(enforced, "enforced"))
    server.start()
    return server


@pytest.fixture
def server(running: Server) -> Server:
    """With a model that answers, whatever the test before has done to it."""
    running.fault(None)
    until(lambda: answers_by_model(running), what="the model's recovery")
    return running


def answers_by_model(server: Server) -> bool:
    return bool(server.decide(situation("calm"))["answered_by"] == "model")


def reasons(answers: list[Answered]) -> Counter[str | None]:
    return Counter(answer.body["fallback_reason"] for answer in answers)


async def ask(server: Server, rollout: str, callers: int, **more: Any) -> list[Answered]:
    """Questions like none before: one that is asked again is no evidence."""
    asked = mixed(lambda _: situation(rollout, next(_numbers), **more))
    return await Load(server.port, asked).once(callers)


@pytest.mark.parametrize(
    ("fault", "rollout", "expected"),
    [
        ("hang", "hangs", "timeout"),
        ("garbage", "garbles", "malformed"),
        ("slow:30000", "dawdles", "timeout"),
    ],
)
async def test_a_failing_model_only_falls_back_is_rolled_back_by_itself_and_comes_back(
    server: Server, fault: str, rollout: str, expected: str
) -> None:
    server.fault(fault)
    answers: list[Answered] = []
    async with asyncio.timeout(PATIENCE_S):
        while server.phase(rollout) == "enforced":
            answers += [a for a in await ask(server, rollout, 3) if a.body["phase"] == "enforced"]
            await asyncio.sleep(0.3)  # callers in no hurry
    assert {answer.status for answer in answers} == {200}
    assert max(answer.seconds for answer in answers) < DEADLINE_S + SLACK_S
    assert {answer.body["answered_by"] for answer in answers} == {"legacy"}
    seen = reasons(answers)
    assert expected in seen
    assert seen.keys() <= {expected, "timeout", "overloaded", "unavailable", "circuit_open", "stale_state"}
    assert all_tightened(answers)
    (rollback,) = (each for each in server.transitions(rollout) if each["kind"] == "rollback")
    assert rollback["automatic"]
    assert rollback["reason"].startswith("guardrail ")

    server.fault(None)
    await eventually(lambda: answers_by_model(server), what="recovery")


def all_tightened(answers: list[Answered]) -> bool:
    """On high risk, what a caller can bring about turns the rules' allow into a question to a person."""
    return all(
        answer.body["decision"]
        == ("require_attestation" if answer.body["fallback_reason"] in PROVOKED else "allow")
        for answer in answers
    )


async def test_a_crashing_model_is_unavailable_and_comes_back(server: Server) -> None:
    restarts = server.health()["model"]["restarts"]
    server.fault("crash")
    answers = [*await ask(server, "crashes", 1), *await ask(server, "crashes", 2)]
    server.fault(None)
    assert {answer.status for answer in answers} == {200}
    assert {answer.body["answered_by"] for answer in answers} == {"legacy"}
    assert reasons(answers).keys() == {"unavailable"}
    await eventually(lambda: answers_by_model(server), what="recovery")
    assert server.health()["model"]["restarts"] > restarts


async def test_a_killed_worker_fails_no_request_and_is_back_within_seconds(server: Server) -> None:
    worker = server.worker
    load = Load(server.port, mixed(about("calm")))
    async with under_load(load, 4):
        await eventually(lambda: by_model(load) >= 5, what="load")
        os.kill(worker, signal.SIGKILL)
        await eventually(lambda: not is_running(worker), within_s=2)
        before = by_model(load)
        took_s = await eventually(lambda: by_model(load) >= before + 5, within_s=30, what="a new worker")
    assert {answer.status for answer in load.answers} == {200}
    assert reasons(load.answers).keys() <= {None, "unavailable", "circuit_open"}
    assert reasons(load.answers)["unavailable"]
    assert took_s < 20
    assert server.worker != worker


def by_model(load: Load) -> int:
    return sum(answer.body["answered_by"] == "model" for answer in load.answers)


async def test_in_shadow_and_advisory_a_hanging_model_changes_no_answer_and_delays_none(
    server: Server,
) -> None:
    server.fault("hang")
    load = Load(server.port, mixed(about("seen"), about("advised")))
    async with under_load(load, 40):
        await eventually(lambda: len(load.answers) >= 1_000, what="load")
    assert {(answer.status, answer.body["decision"]) for answer in load.answers} == {(200, "allow")}
    assert {answer.body["answered_by"] for answer in load.answers} == {"legacy"}
    assert max(answer.seconds for answer in load.answers) < SLACK_S


async def test_flooding_a_high_risk_rollout_never_gets_the_rules_allow(server: Server) -> None:
    answers = await ask(server, "guarded", 12 * QUEUE)
    assert {answer.status for answer in answers} == {200}
    assert {answer.body["legacy"]["decision"] for answer in answers} == {"allow"}
    fallen = [answer for answer in answers if answer.body["fallback_reason"] is not None]
    assert reasons(fallen)["overloaded"] >= QUEUE
    assert {answer.body["decision"] for answer in fallen} == {"require_attestation"}
    assert {answer.body["answered_by"] for answer in fallen} == {"legacy"}


@pytest.mark.parametrize("field", ["details", "recent_history", "team_context", "padding"])
async def test_padding_a_field_on_a_high_risk_rollout_never_gets_the_rules_allow(
    server: Server, field: str
) -> None:
    (answer,) = await ask(server, "guarded", 1, **{field: "very long " * 4_000})
    assert answer.body["legacy"]["decision"] == "allow"
    assert answer.body["fallback_reason"] == "oversize"
    assert answer.body["decision"] == "require_attestation"


async def test_the_same_situation_gets_the_same_bits_alone_and_in_a_crowd(server: Server) -> None:
    asked = situation("calm", 7, details="rotate the keys of the staging cluster")
    alone = probabilities(server, asked)
    bound = Load(server.port, mixed(about("calm"), lambda _: asked, about("seen")))
    async with under_load(bound, 6):
        await eventually(lambda: len(in_crowd(bound, asked)) >= 8, what="load")
    # What binds goes first, so that advice is asked for beside callers who are only watched.
    async with under_load(Load(server.port, mixed(about("seen"), about("advised"))), 6):
        beside = await asyncio.to_thread(probabilities, server, asked)
    assert all(each == alone for each in (*in_crowd(bound, asked), beside))


def probabilities(server: Server, asked: Document) -> Document:
    answer = server.admin.post("/advisory", json=asked).json()
    assert answer["outcome"] == "ok", answer
    return dict(answer["probabilities"])


def in_crowd(load: Load, asked: Document) -> list[Document]:
    """What the model said of one situation, among others."""
    answered = [a for a in load.answers if a.asked == asked and a.body["answered_by"] == "model"]
    return [answer.body["advisory"]["probabilities"] for answer in answered]
