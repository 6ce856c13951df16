"""Does a client deny in time, whatever fails?"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

from app.client import AsyncClient, Client, Decision
from tests.peer import Peer, Reply, problem

SITUATION = {
    "action_type": "read",
    "actor_role": "member",
    "actor_id": "ada",
    "t3_tensor": {"competence": 0.8, "reliability": 0.8, "integrity": 0.8},
}
ALLOWED: dict[str, Any] = {
    "id": "01J",
    "decision": "allow",
    "final": True,
    "phase": "shadow",
    "answered_by": "legacy",
    "rollout": "read",
}
BUSY = Reply(503, problem(503, "not-recorded", "No decision", detail="nothing could be recorded"))


@pytest.fixture
def client(peer: Peer) -> Iterator[Client]:
    with Client(peer.url, key="pg_test", deadline_s=5.0) as opened:
        yield opened


def is_fallback(decision: Decision) -> bool:
    return (decision.decision, decision.source, decision.allowed) == ("deny", "client_fallback", False)


def test_a_decision_is_the_servers_word(peer: Peer, client: Client) -> None:
    peer.replies(Reply(200, ALLOWED))
    decision = client.decide(SITUATION)
    assert (decision.decision, decision.source, decision.id) == ("allow", "server", "01J")
    assert (decision.phase, decision.answered_by, decision.error) == ("shadow", "legacy", None)
    assert decision.raw["rollout"] == "read"
    [seen] = peer.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/decisions", SITUATION)
    assert seen.headers["authorization"] == "Bearer pg_test"


def test_a_situation_may_be_given_as_keywords(peer: Peer, client: Client) -> None:
    peer.replies(Reply(200, ALLOWED))
    client.decide(SITUATION, resource="docs/a.md")
    assert peer.seen[0].body == {**SITUATION, "resource": "docs/a.md"}


def test_a_dead_port_denies_in_time() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        started = time.monotonic()
        with Client(f"http://127.0.0.1:{unused.getsockname()[1]}", deadline_s=0.3) as client:
            decision = client.decide(SITUATION)
    assert is_fallback(decision)
    assert decision.error
    assert time.monotonic() - started < 1.0


def test_a_server_that_hangs_denies_at_the_deadline(peer: Peer, client: Client) -> None:
    peer.hangs()
    started = time.monotonic()
    decision = client.decide(SITUATION, deadline_s=0.2)
    assert is_fallback(decision)
    assert decision.error == "no answer within 0.2 s"
    assert 0.2 <= time.monotonic() - started < 1.0
    assert len(peer.seen) == 1, "a request that may have been taken is not sent again"


def test_a_server_that_drips_cannot_stretch_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        server.settimeout(5)
        with Client(f"http://127.0.0.1:{server.getsockname()[1]}", deadline_s=0.3) as client:
            started = time.monotonic()
            asked = pool.submit(client.decide, SITUATION)
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
                while not wait([asked], timeout=0.02).done:
                    connection.sendall(b" ")
            assert is_fallback(asked.result(timeout=5))
            assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("first", [BUSY, Reply(429, problem(429, "too-many", "Slow down"))])
def test_a_request_that_was_not_taken_is_sent_again_with_its_key(
    peer: Peer, client: Client, first: Reply
) -> None:
    peer.replies(first, first, Reply(200, ALLOWED))
    assert client.decide(SITUATION).decision == "allow"
    keys = {seen.headers["idempotency-key"] for seen in peer.seen}
    assert len(peer.seen) == 3
    assert len(keys) == 1


def test_two_decisions_have_two_keys(peer: Peer, client: Client) -> None:
    peer.replies(Reply(200, ALLOWED))
    client.decide(SITUATION)
    client.decide(SITUATION)
    assert len({seen.headers["idempotency-key"] for seen in peer.seen}) == 2


def test_a_server_that_stays_busy_denies_with_its_words(
    peer: Peer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "app.client.asynchronous.pause_s", lambda *_: 0.75
    )  # half a second is left for the last
    peer.replies(BUSY)
    started = time.monotonic()
    decision = client.decide(SITUATION, deadline_s=2.0)
    assert is_fallback(decision)
    assert decision.error == "nothing could be recorded"
    assert time.monotonic() - started < 2.0
    assert len(peer.seen) == 3


def test_a_pause_longer_than_the_deadline_is_not_waited_for(peer: Peer, client: Client) -> None:
    peer.replies(Reply(503, problem(503, "busy", "Busy"), {"Retry-After": "30"}))
    started = time.monotonic()
    assert is_fallback(client.decide(SITUATION))
    assert time.monotonic() - started < 1.0
    assert len(peer.seen) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 413, 422, 500, 502])
def test_another_failure_denies_at_once(peer: Peer, client: Client, status: int) -> None:
    peer.replies(Reply(status, problem(status, "some", "No")))
    decision = client.decide(SITUATION)
    assert is_fallback(decision)
    assert decision.error == "No"
    assert len(peer.seen) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b""),
        Reply(200, b"<html>welcome</html>"),
        Reply(200, "allow"),
        Reply(200, []),
        Reply(200, {**ALLOWED, "decision": "permit"}),
        Reply(200, {**ALLOWED, "decision": True}),
        Reply(200, {"decision": "allow"}),
        Reply(204, b""),
        Reply(302, b"", {"Location": "/elsewhere"}),
        Reply(500, b"oops"),
    ],
    ids=lambda reply: f"{reply.status} {reply.body!r}"[:40],
)
def test_an_answer_that_is_no_decision_denies(peer: Peer, client: Client, reply: Reply) -> None:
    peer.replies(reply)
    decision = client.decide(SITUATION)
    assert is_fallback(decision)
    assert decision.error


def test_what_cannot_be_sent_denies(client: Client) -> None:
    assert is_fallback(client.decide(SITUATION, details=object()))


def test_a_batch_answers_each_in_its_place(peer: Peer, client: Client) -> None:
    bad = problem(422, "invalid-situation", "Not a situation", detail="actor_id: is required")
    peer.replies(Reply(200, {"decisions": [ALLOWED, bad]}))
    first, second = client.decide_batch([SITUATION, {}])
    assert first.allowed
    assert is_fallback(second)
    assert second.error == "actor_id: is required"


@pytest.mark.parametrize("body", [{"decisions": [ALLOWED]}, {"decisions": None}, [], {}])
def test_a_batch_of_the_wrong_length_denies_all(peer: Peer, client: Client, body: Any) -> None:
    peer.replies(Reply(200, body))
    assert all(is_fallback(decision) for decision in client.decide_batch([SITUATION, SITUATION]))


def test_a_failed_batch_denies_all(peer: Peer, client: Client) -> None:
    peer.replies(Reply(500, b""))
    assert [is_fallback(each) for each in client.decide_batch([SITUATION] * 3)] == [True] * 3


def test_waiting_reads_the_decision_in_force(peer: Peer, client: Client) -> None:
    peer.replies(Reply(200, {**ALLOWED, "answered_by": "reviewer"}))
    assert client.wait("01J", 1.5).answered_by == "reviewer"
    assert peer.seen[0].path == "/v1/decisions/01J?wait_s=1.5"


async def test_the_asynchronous_client_keeps_the_same_promises(peer: Peer) -> None:
    async with AsyncClient(peer.url, deadline_s=0.3) as client:
        peer.replies(BUSY, Reply(200, ALLOWED))
        assert (await client.decide(SITUATION)).allowed
        peer.hangs()
        assert is_fallback(await client.decide(SITUATION))


def test_a_closed_client_opens_again(peer: Peer, client: Client) -> None:
    peer.replies(Reply(200, ALLOWED))
    client.decide(SITUATION)
    client.close()
    client.close()
    assert client.decide(SITUATION).allowed


def test_a_forked_process_can_go_on_asking(peer: Peer) -> None:
    """The fork is real, and the child leaves without running the parent's clean-up."""
    peer.replies(Reply(200, ALLOWED))
    with Client(peer.url) as client:
        client.decide(SITUATION)
        child = os.fork()
        if child == 0:
            os._exit(0 if client.decide(SITUATION).allowed else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.decide(SITUATION).allowed


def test_a_key_that_cannot_be_sent_fails_when_the_client_is_made() -> None:
    with pytest.raises(ValueError, match="ascii"):
        Client(key="schlüssel")


def test_proxies_of_the_environment_are_not_asked(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    peer.answer = lambda seen: Reply(200, {**ALLOWED, "id": seen.path})
    with Client(peer.url) as client:
        assert client.decide(SITUATION).id == "/v1/decisions"
