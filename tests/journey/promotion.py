"""What happens when everybody promotes at once, on honest evidence?"""

import asyncio
from collections import Counter
from collections.abc import Sequence

import httpx

from tests.journey.load import Load, eventually, mixed
from tests.journey.policies import about
from tests.journey.server import PATIENCE_S, Server

PROMOTIONS = 50
# The rules and the model allow alike what the journeys ask, so that a few observations carry this gate.
READY = "risk: low, gates: {advisory: {agreement_above: 0.5}}, exposure: [100]"


async def promotions(servers: Sequence[Server], rollout: str) -> list[httpx.Response]:
    """Meet the gate, then let many people promote at the same time, spread over the servers."""
    first = servers[0]
    await Load(first.port, mixed(about(rollout))).once(15)
    await eventually(lambda: _gate_passes(first, rollout), what="honest evidence")
    revision = first.admin.get(f"/v1/rollouts/{rollout}").json()["revision"]
    body = {"to": "advisory", "reason": "the evidence carries it", "expected_revision": revision}
    urls = [f"{servers[n % len(servers)].url}/v1/rollouts/{rollout}/promote" for n in range(PROMOTIONS)]
    async with httpx.AsyncClient(headers=first.admin.headers, timeout=PATIENCE_S, trust_env=False) as client:
        return list(await asyncio.gather(*(client.post(url, json=body) for url in urls)))


def assert_one_won(server: Server, rollout: str, answers: Sequence[httpx.Response]) -> None:
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: PROMOTIONS - 1}
    refusals = [answer.json() for answer in answers if answer.status_code == 409]
    assert {refusal["type"] for refusal in refusals} == {"revision-conflict"}
    assert [each["kind"] for each in server.transitions(rollout)].count("promote") == 1


def _gate_passes(server: Server, rollout: str) -> bool:
    gate = server.admin.get(f"/v1/rollouts/{rollout}/gate", params={"to": "advisory"}).json()
    return bool(gate["outcome"] == "pass")
