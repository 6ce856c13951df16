import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest

from app.domain.decision import Decision, LegacyAnswer
from app.domain.situation import Situation, Trust
from app.engines.legacy.build import build_legacy_engine
from app.engines.legacy.servers import JsonPeer, PeerError
from tests.peer import Peer, Reply

ALLOW, ATTEST, DENY = Decision.ALLOW, Decision.REQUIRE_ATTESTATION, Decision.DENY
SITUATION = Situation(
    "deploy",
    "developer",
    "ada",
    Trust(0.8, 0.9, 0.95),
    resource="env:staging",
    details={"build": 7},
    identity_metrics={"level": 3},
)


async def answered(peer: Peer, kind: str, body: Any) -> LegacyAnswer:
    """What an engine makes of a server's answer."""
    peer.replies(Reply(body=body))
    engine = build_legacy_engine(f"{kind}:{peer.url}/asked", source="", deadline_s=5)
    try:
        return await engine.decide(SITUATION)
    finally:
        await engine.close()


@pytest.mark.parametrize(
    ("kind", "body", "decision", "rule"),
    [
        ("opa", {"result": "allow"}, ALLOW, None),
        ("opa", {"result": "require_attestation"}, ATTEST, None),
        ("opa", {"result": True}, ALLOW, None),
        ("opa", {"result": False}, DENY, None),
        ("opa", {"result": {"decision": "allow", "rule": "readers"}}, ALLOW, "readers"),
        ("opa", {"result": {"decision": False, "rule": 3}}, DENY, None),
        ("authzen", {"decision": True}, ALLOW, None),
        ("authzen", {"decision": False}, DENY, None),
        ("authzen", {"decision": False, "context": {"outcome": "require_attestation"}}, ATTEST, None),
        ("authzen", {"decision": False, "context": {"outcome": "allow"}}, DENY, None),
        ("authzen", {"decision": False, "context": None}, DENY, None),
        ("authzen", {"decision": True, "context": {"rule": "builders"}}, ALLOW, "builders"),
    ],
)
async def test_an_answer_in_the_servers_form_is_a_decision_perhaps_with_its_rule(
    peer: Peer, kind: str, body: Any, decision: Decision, rule: str | None
) -> None:
    answer = await answered(peer, kind, body)
    assert (answer.engine, answer.decision, answer.rule, answer.error) == (kind, decision, rule, None)


ODD: dict[str, list[Any]] = {
    "opa": [
        *({}, [], "allow", {"result": None}, {"result": 1}),
        *({"result": "ALLOW"}, {"result": {}}, {"result": ["allow"]}),
    ],
    "authzen": [
        *({}, [], True, {"decision": "true"}, {"decision": 1}),
        {"decision": True, "context": {"error": {"status": 400}}},
    ],
}


@pytest.mark.parametrize(("kind", "body"), [(kind, body) for kind in ODD for body in ODD[kind]], ids=str)
async def test_an_undefined_or_odd_answer_is_a_failure(peer: Peer, kind: str, body: Any) -> None:
    answer = await answered(peer, kind, body)
    assert (answer.failed, answer.decision) == (True, DENY)


async def test_opa_is_given_the_facts(peer: Peer) -> None:
    await answered(peer, "opa", {"result": True})
    assert peer.seen[0].path == "/asked"
    assert peer.seen[0].body["input"]["trust"]["lowest"] == 0.8
    assert peer.seen[0].body["input"]["details"] == {"build": 7}


async def test_authzen_is_asked_in_the_standards_words(peer: Peer) -> None:
    await answered(peer, "authzen", {"decision": True})
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


async def test_a_question_that_has_left_is_not_asked_again(peer: Peer) -> None:
    peer.replies(Reply(503, {}), Reply(200, {"ok": True}))
    asking = JsonPeer(peer.url, deadline_s=5)
    with pytest.raises(PeerError, match="503"):
        await asking.ask({})
    await asking.close()
    assert len(peer.seen) == 1


async def test_a_redirect_is_not_followed(peer: Peer) -> None:
    peer.replies(Reply(307, b"", {"Location": peer.url}), Reply(200, {"ok": True}))
    asking = JsonPeer(peer.url, deadline_s=5)
    with pytest.raises(PeerError, match="307"):
        await asking.ask({})
    await asking.close()


async def test_an_answer_without_end_is_cut_off(peer: Peer) -> None:
    peer.replies(Reply(body=json.dumps("x" * 300_000).encode()))
    asking = JsonPeer(peer.url, deadline_s=5)
    with pytest.raises(PeerError, match="too large"):
        await asking.ask({})
    await asking.close()


async def test_the_deadline_is_one_for_all_and_not_one_a_byte() -> None:
    hung_up = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)  # the peer's pace, far below the deadline
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        hung_up.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        asking = JsonPeer(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", deadline_s=0.3)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asking.ask({}), 20)
        await asking.close()
        await asyncio.wait_for(hung_up.wait(), 20)
