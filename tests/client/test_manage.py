"""Do management calls say what the server said, and raise what it refused?"""

import time
from collections.abc import Callable, Iterator

import pytest

from app.client import Client, ClientError
from app.client.wire import Document
from tests.peer import Peer, Reply, problem


@pytest.fixture
def client(peer: Peer) -> Iterator[Client]:
    with Client(peer.url, key="pg_test", management_deadline_s=5.0) as opened:
        yield opened


Call = Callable[[Client], Document]

CALLS: list[tuple[Call, str, Document | None]] = [
    (lambda c: c.rollout("read"), "GET /v1/rollouts/read", None),
    (lambda c: c.gate("read", to="advisory"), "GET /v1/rollouts/read/gate?to=advisory", None),
    (lambda c: c.guardrails("read"), "GET /v1/rollouts/read/guardrails", None),
    (
        lambda c: c.promote("read", to="advisory", reason="r", expected_revision=1),
        "POST /v1/rollouts/read/promote",
        {"to": "advisory", "reason": "r", "expected_revision": 1},
    ),
    (lambda c: c.rollback("read", reason="r"), "POST /v1/rollouts/read/rollback", {"reason": "r"}),
    (
        lambda c: c.verdict("r1", decision="deny", category="model_too_permissive", notes="n"),
        "POST /v1/reviews/r1/verdict",
        {"decision": "deny", "category": "model_too_permissive", "notes": "n"},
    ),
    (lambda c: c.delete("/v1/keys/k1"), "DELETE /v1/keys/k1", None),
    (
        lambda c: c.post("/v1/kill-switch", engaged=True, reason="r"),
        "POST /v1/kill-switch",
        {"engaged": True, "reason": "r"},
    ),
]


@pytest.mark.parametrize(("call", "line", "body"), CALLS, ids=[each[1] for each in CALLS])
def test_a_call_is_one_request(
    peer: Peer, client: Client, call: Call, line: str, body: Document | None
) -> None:
    peer.replies(Reply(200, {"done": True}))
    assert call(client) == {"done": True}
    [seen] = peer.seen
    assert (f"{seen.method} {seen.path}", seen.body) == (line, body)


def test_lists_come_without_their_wrapping(peer: Peer, client: Client) -> None:
    peer.replies(Reply(200, {"rollouts": [{"name": "read"}], "reviews": [{"id": "r1"}]}))
    assert client.rollouts() == [{"name": "read"}]
    assert client.reviews(status="open") == [{"id": "r1"}]
    assert peer.seen[1].path == "/v1/reviews?status=open"


def test_a_refusal_carries_its_facts(peer: Peer, client: Client) -> None:
    gate = {"outcome": "insufficient", "sentence": "too few"}
    peer.replies(Reply(409, problem(409, "gate-not-met", "Not yet", detail="too few", gate=gate)))
    with pytest.raises(ClientError, match="too few") as caught:
        client.promote("read", to="advisory", reason="r", expected_revision=1)
    assert (caught.value.status, caught.value.type) == (409, "gate-not-met")
    assert caught.value.problem["gate"] == gate


def test_a_refusal_without_a_document_is_still_one(peer: Peer, client: Client) -> None:
    peer.replies(Reply(502, b"<html>"))
    with pytest.raises(ClientError, match="the server answered 502") as caught:
        client.rollout("read")
    assert (caught.value.status, caught.value.type) == (502, "")


@pytest.mark.parametrize("body", [b"nonsense", b"[]"])
def test_an_answer_that_is_no_document_is_an_error(peer: Peer, client: Client, body: bytes) -> None:
    peer.replies(Reply(200, body))
    with pytest.raises(ClientError, match="the answer is not"):
        client.rollout("read")


def test_a_server_that_is_not_there_is_not_waited_for_until_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.client.asynchronous._CONNECT_WITHIN_S", 0.2)
    started = time.monotonic()
    with (
        Client("http://127.0.0.1:1", key="pg_test", management_deadline_s=60.0) as client,
        pytest.raises(ClientError, match="connection attempts failed"),
    ):
        client.rollouts()
    assert time.monotonic() - started < 30.0
