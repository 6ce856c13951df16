"""What does a guardrail learn from Prometheus, and what where it does not answer?"""

import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.domain.assessment import Answer
from app.domain.phase import Phase
from app.services.guard import Guard
from app.services.queries import Queries
from app.store.database import Database
from tests.services.plane import ROLLOUTS, Stage, opened

URL = "http://prometheus:9090"
BURN = "slo:burn"
WITH_QUERY = ROLLOUTS.replace(
    "    review_rate: 1\n",
    "    review_rate: 1\n    guardrails: {queries: {burn: {query: 'slo:burn', above: 2, looks: 2, action: hold}}}\n",
)

Reply = Callable[[httpx.Request], httpx.Response]


def scalar(value: str) -> Reply:
    return replies("scalar", [1_700_000_000.5, value])


def vector(*values: str) -> Reply:
    return replies(
        "vector", [{"metric": {"job": "api"}, "value": [1_700_000_000, value]} for value in values]
    )


def replies(kind: str, result: object) -> Reply:
    body = {"status": "success", "data": {"resultType": kind, "result": result}}
    return lambda _: httpx.Response(200, json=body)


def queries(reply: Reply) -> Queries:
    return Queries(URL, transport=httpx.MockTransport(reply))


def refuses(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        pytest.param(scalar("1.5"), 1.5, id="scalar"),
        pytest.param(vector("-3e2"), -300.0, id="vector of one"),
    ],
)
async def test_one_number_is_an_answer(reply: Reply, value: float) -> None:
    assert await queries(reply).ask([BURN, BURN]) == {BURN: Answer(value)}


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        pytest.param(vector(), "0 elements", id="empty"),
        pytest.param(vector("1", "2"), "2 elements", id="several"),
        pytest.param(scalar("NaN"), "nan", id="NaN"),
        pytest.param(vector("+Inf"), "inf", id="infinity"),
        pytest.param(scalar("many"), "no number", id="text"),
        pytest.param(replies("string", [1, "5"]), "no number", id="string"),
        pytest.param(replies("matrix", [{"values": [[1, "5"]]}]), "no number", id="matrix"),
        pytest.param(lambda _: httpx.Response(200, text="<html>"), "no number", id="another page"),
        pytest.param(lambda _: httpx.Response(400, json={"status": "error"}), "answers 400", id="bad query"),
        pytest.param(lambda _: httpx.Response(302, headers={"location": "/"}), "answers 302", id="elsewhere"),
        pytest.param(refuses, "ConnectError", id="away"),
    ],
)
async def test_whatever_is_no_number_is_a_problem(reply: Reply, problem: str) -> None:
    answer = (await queries(reply).ask([BURN]))[BURN]
    assert answer.value is None
    assert problem in answer.problem


async def test_the_query_is_put_as_it_was_written() -> None:
    asked: list[httpx.URL] = []

    def reply(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return scalar("1")(request)

    text = 'sum(rate(x{job="a b"}[5m])) > 0'
    await queries(reply).ask([text])
    assert (asked[0].path, asked[0].params["query"]) == ("/api/v1/query", text)


async def test_without_a_prometheus_every_query_is_a_problem() -> None:
    answer = (await Queries(None).ask([BURN]))[BURN]
    assert answer == Answer(None, "PHASEGATE_PROMETHEUS_URL is not set")
    assert await Queries(None).ask([]) == {}


class Hanging(httpx.AsyncBaseTransport):
    """Answers one query and never another."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.params["query"] != BURN:
            await asyncio.Event().wait()
        return scalar("7")(request)


async def test_one_deadline_bounds_all_and_spares_what_came_in_time() -> None:
    slow = Queries(URL, transport=Hanging(), deadline_s=0.05)
    said = await slow.ask([BURN, "slow", "slower"])
    assert said[BURN] == Answer(7.0)
    assert {said["slow"], said["slower"]} == {Answer(None, "no answer within 0.05 s")}


class Prometheus:
    """One whose answer a test chooses."""

    def __init__(self) -> None:
        self.value = 1.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        return scalar(json.dumps(self.value))(request)


async def watched(stage: Stage, prometheus: Reply | None) -> Guard:
    """A guard of its own over the stage's plane."""
    services = stage.services
    asking = Queries(None) if prometheus is None else queries(prometheus)
    return Guard(
        services.plane, services.ledger, services.models, services.notices, asking, now=stage.clock.now
    )


async def test_a_query_above_its_limit_holds_and_stands_behind_the_other_guardrails(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path, rollouts=WITH_QUERY) as stage:
        await stage.enter("read", Phase.ENFORCED)
        prometheus = Prometheus()
        guard = await watched(stage, prometheus)
        outcomes, made = [], []
        for prometheus.value in (1.0, 3.0, math.nan, 3.0, 3.0):
            made += await guard.look()
            outcomes.append(guard.assessments("read")[-1]["outcome"])
        assert outcomes == ["ok", "warning", "error", "breach", "breach"]
        (transition,) = made
        assert (transition["kind"], stage.state("read").held) == ("hold", True)
        assert transition["reason"].startswith("guardrail burn: burn is 3, limit 2")
        assert transition["evidence"]["guardrail"]["rate"] == 3.0
        assert [one["name"] for one in guard.assessments("read")][-2:] == ["wrong_allow", "burn"]
        assert guard.assessments("write")[-1]["name"] == "wrong_allow"


async def test_a_query_that_nobody_answers_neither_acts_nor_stops_the_pass(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path, rollouts=WITH_QUERY) as stage:
        guard = await watched(stage, None)
        assert guard.assessments("read")[-1]["action"] == "hold"
        assert await guard.look() == []
        said = guard.assessments("read")[-1]
        assert (said["outcome"], "is not set" in said["sentence"]) == ("error", True)
        assert stage.services.plane.guard_age_s == 0
