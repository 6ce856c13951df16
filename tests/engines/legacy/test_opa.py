from typing import Any

import pytest

from app.domain.decision import Decision
from app.domain.situation import Situation, Trust
from app.engines.legacy.servers import opa_engine
from tests.peer import Peer, Reply

SITUATION = Situation("read", "member", "ada", Trust(0.8, 0.8, 0.8), resource="x", extra={"region": "eu"})


@pytest.mark.parametrize(
    ("result", "decision", "rule"),
    [
        ("allow", Decision.ALLOW, None),
        ("require_attestation", Decision.REQUIRE_ATTESTATION, None),
        (True, Decision.ALLOW, None),
        (False, Decision.DENY, None),
        ({"decision": "allow", "rule": "readers"}, Decision.ALLOW, "readers"),
        ({"decision": False, "rule": 3}, Decision.DENY, None),
    ],
)
async def test_a_result_may_be_a_name_a_boolean_or_a_decision_with_its_rule(
    peer: Peer, result: Any, decision: Decision, rule: str | None
) -> None:
    peer.replies(Reply(body={"result": result}))
    engine = opa_engine(f"{peer.url}/v1/data/phasegate/decision", deadline_s=5)
    answer = await engine.decide(SITUATION)
    await engine.close()
    assert (answer.decision, answer.rule, answer.error) == (decision, rule, None)
    assert peer.seen[0].path == "/v1/data/phasegate/decision"
    assert peer.seen[0].body["input"]["trust"]["lowest"] == 0.8
    assert peer.seen[0].body["input"]["extra"] == {"region": "eu"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "allow",
        {"result": None},
        {"result": 1},
        {"result": "ALLOW"},
        {"result": {}},
        {"result": ["allow"]},
    ],
    ids=str,
)
async def test_an_undefined_or_odd_result_is_a_failure(peer: Peer, body: Any) -> None:
    peer.replies(Reply(body=body))
    engine = opa_engine(peer.url, deadline_s=5)
    answer = await engine.decide(SITUATION)
    await engine.close()
    assert answer.failed
    assert answer.decision is Decision.DENY
