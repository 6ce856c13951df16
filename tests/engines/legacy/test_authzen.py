from typing import Any

import pytest

from app.domain.decision import Decision
from app.domain.situation import Situation, Trust
from app.engines.legacy.servers import authzen_engine
from tests.peer import Peer, Reply

SITUATION = Situation(
    "deploy",
    "developer",
    "ada",
    Trust(0.8, 0.9, 0.95),
    resource="env:staging",
    details={"build": 7},
    identity_metrics={"level": 3},
)


@pytest.mark.parametrize(
    ("body", "decision", "rule"),
    [
        ({"decision": True}, Decision.ALLOW, None),
        ({"decision": False}, Decision.DENY, None),
        (
            {"decision": False, "context": {"outcome": "require_attestation"}},
            Decision.REQUIRE_ATTESTATION,
            None,
        ),
        ({"decision": False, "context": {"outcome": "allow"}}, Decision.DENY, None),
        ({"decision": False, "context": None}, Decision.DENY, None),
        ({"decision": True, "context": {"rule": "builders"}}, Decision.ALLOW, "builders"),
    ],
)
async def test_true_is_allow_and_false_is_deny_unless_its_outcome_asks_for_attestation(
    peer: Peer, body: Any, decision: Decision, rule: str | None
) -> None:
    peer.replies(Reply(body=body))
    engine = authzen_engine(f"{peer.url}/access/v1/evaluation", deadline_s=5)
    answer = await engine.decide(SITUATION)
    await engine.close()
    assert (answer.decision, answer.rule, answer.error) == (decision, rule, None)


async def test_a_situation_is_asked_in_the_standards_words(peer: Peer) -> None:
    peer.replies(Reply(body={"decision": True}))
    engine = authzen_engine(f"{peer.url}/access/v1/evaluation", deadline_s=5)
    await engine.decide(SITUATION)
    await engine.close()
    assert peer.seen[0].body == {
        "subject": {
            "type": "user",
            "id": "ada",
            "properties": {
                "role": "developer",
                "t3_tensor": {"competence": 0.8, "reliability": 0.9, "integrity": 0.95},
                "identity_metrics": {"level": 3},
            },
        },
        "action": {"name": "deploy"},
        "resource": {"type": "resource", "id": "env:staging"},
        "context": {"details": {"build": 7}},
    }


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        True,
        {"decision": "true"},
        {"decision": 1},
        {"decision": True, "context": {"error": {"status": 400}}},
    ],
    ids=str,
)
async def test_an_answer_of_another_shape_is_a_failure(peer: Peer, body: Any) -> None:
    peer.replies(Reply(body=body))
    engine = authzen_engine(peer.url, deadline_s=5)
    answer = await engine.decide(SITUATION)
    await engine.close()
    assert answer.failed
    assert answer.decision is Decision.DENY
