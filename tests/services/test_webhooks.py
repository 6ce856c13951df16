"""Do those outside hear what happened, once it has, and only from us?"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.domain.phase import Phase
from app.errors import InvalidInput, NotFound
from app.observability import REGISTRY
from app.services.webhooks import RETRY_AFTER_S, Webhooks, signed
from app.store import tables as t
from app.store.database import Database
from app.store.deliveries import CLAIM_US, Claimed, Kind, claim_due, create_webhook, enqueue
from app.store.history import TransitionFilters
from app.store.transaction import Transaction
from tests.peer import Peer, Reply, Seen, serving
from tests.services.plane import Clock, Stage, opened, situation


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as peer:
        peer.replies(Reply(204, b""))
        yield peer


async def told(stage: Stage, peer: Peer, *kinds: str, path: str = "/hook") -> dict[str, Any]:
    """A webhook that has heard of its own addition."""
    by = stage.principal("operator")
    added = await stage.services.webhooks.add(url=peer.url + path, kinds=kinds, by=by)
    await deliver(stage)
    peer.seen.clear()
    return added


async def deliver(stage: Stage) -> None:
    await stage.services.webhooks.deliver()
    await stage.services.webhooks.close()
    stage.services.webhooks._client = None  # a loop of its own for each test


async def hold(stage: Stage, reason: str = "look first") -> None:
    await stage.services.levers.hold("read", reason=reason, by=stage.principal("operator"))


async def say(stage: Stage, kind: str, **body: Any) -> None:
    now_us = stage.services.now_us()
    await stage.ledger.run(
        lambda tx: enqueue(tx, kind=kind, body={"sentence": "so it is", **body}, now_us=now_us)
    )


def commits() -> float:
    return REGISTRY.get_sample_value("phasegate_commit_seconds_count") or 0


def last(stage: Stage) -> dict[str, Any]:
    return stage.services.webhooks.log(status=None, limit=1)[0]


def is_ours(seen: Seen, secret: str) -> bool:
    """HMAC by its definition (RFC 2104), over what the specification says that it is taken of."""
    key = base64.b64decode(secret.split("_", 1)[1]).ljust(64, b"\0")
    message = b".".join(
        (seen.headers["webhook-id"].encode(), seen.headers["webhook-timestamp"].encode(), seen.raw)
    )
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + message).digest()
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()
    return seen.headers["webhook-signature"] == f"v1,{base64.b64encode(outer).decode()}"


def test_the_signature_is_that_of_the_specification() -> None:
    claimed = Claimed(
        id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        webhook_id="",
        url="",
        secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        body='{"test": 2432232314}',
        attempts=1,
    )
    headers = signed(claimed, at_s=1_614_265_330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_transition_is_told_with_a_signature_that_holds(any_stage: Stage, receiver: Peer) -> None:
    added = await told(any_stage, receiver)
    await hold(any_stage)
    await deliver(any_stage)
    [seen] = receiver.seen
    assert seen.path == "/hook"
    assert is_ours(seen, added["secret"])
    assert not is_ours(seen, base64.b64encode(b"another").decode().join(("whsec_", "")))
    assert seen.headers["webhook-timestamp"] == str(int(any_stage.clock.now().timestamp()))
    assert seen.body["type"] == "phasegate.transition"
    assert seen.body["id"] == seen.headers["webhook-id"]
    assert seen.body["text"].endswith(" held read: look first")
    assert (seen.body["data"]["kind"], seen.body["data"]["to"]["held"]) == ("hold", True)
    assert (last(any_stage)["status"], last(any_stage)["response"]) == ("delivered", 204)


async def test_words_of_any_script_are_signed_as_they_are_sent(stage: Stage, receiver: Peer) -> None:
    added = await told(stage, receiver)
    await hold(stage, "größer als 5 %: 確認 🛑")
    await deliver(stage)
    [seen] = receiver.seen
    assert is_ours(seen, added["secret"])
    assert seen.body["text"].endswith("größer als 5 %: 確認 🛑")
    assert seen.headers["content-length"] == str(len(seen.raw))


async def test_a_webhook_hears_first_that_it_was_added(stage: Stage, receiver: Peer) -> None:
    by = stage.principal("operator")
    await stage.services.webhooks.add(url=f"{receiver.url}/a/secret/path", kinds=(), by=by)
    await deliver(stage)
    [seen] = receiver.seen
    assert " added the webhook http://" in seen.body["text"]
    assert "secret" not in json.dumps(seen.body)


async def test_what_fails_is_tried_again_until_it_is_heard(stage: Stage, receiver: Peer) -> None:
    await told(stage, receiver)
    receiver.replies(Reply(500), Reply(302, headers={"Location": receiver.url}), Reply(200))
    await hold(stage)
    for wait_s, status in zip((5, 30), (500, 302), strict=True):
        await deliver(stage)
        assert (last(stage)["status"], last(stage)["response"]) == ("waiting", status)
        stage.clock.passes(seconds=wait_s - 0.001)
        await deliver(stage)
        stage.clock.passes(seconds=0.001)
    await deliver(stage)
    assert (last(stage)["status"], last(stage)["attempts"], last(stage)["error"]) == ("delivered", 3, None)
    assert len({seen.headers["webhook-id"] for seen in receiver.seen}) == 1
    assert len({seen.headers["webhook-timestamp"] for seen in receiver.seen}) == 3
    assert len({seen.raw for seen in receiver.seen}) == 1


async def test_what_fails_every_time_has_failed_and_is_said(stage: Stage, receiver: Peer) -> None:
    await told(stage, receiver)
    receiver.replies(Reply(503))
    await hold(stage)
    structlog.reset_defaults()  # whatever level another test has set
    with structlog.testing.capture_logs() as lines:
        for wait_s in (*RETRY_AFTER_S, 10**6):
            await deliver(stage)
            stage.clock.passes(seconds=wait_s)
        await deliver(stage)
    assert len(receiver.seen) == 1 + len(RETRY_AFTER_S)
    assert (last(stage)["status"], last(stage)["error"]) == ("failed", "answered 503")
    assert [line["id"] for line in lines if line["event"] == "delivery_failed"] == [last(stage)["id"]]


async def test_a_receiver_that_is_not_there_is_tried_again(stage: Stage) -> None:
    with serving() as peer:
        peer.replies(Reply(200))
        await told(stage, peer)
    await hold(stage)
    await deliver(stage)
    assert (last(stage)["status"], last(stage)["response"]) == ("waiting", None)
    assert last(stage)["error"].startswith("ConnectError: ")


async def test_an_address_that_no_library_understands_is_tried_again_too(
    stage: Stage, receiver: Peer
) -> None:
    await stage.ledger.run(
        lambda tx: create_webhook(tx, url="http://127.0.0.1:99999/a-secret", kinds=(), by="test", now_us=1)
    )
    await told(stage, receiver)
    await hold(stage)
    await deliver(stage)
    assert [seen.body["data"]["kind"] for seen in receiver.seen] == ["hold"]
    waiting = stage.services.webhooks.log(status="waiting", limit=9)
    assert {(row["attempts"], row["error"]) for row in waiting} == {(1, "ExceptionGroup")}


async def test_what_is_not_due_costs_no_write(stage: Stage, receiver: Peer) -> None:
    await told(stage, receiver)
    receiver.replies(Reply(500))
    await hold(stage)
    await deliver(stage)
    stage.clock.passes(days=1)
    await stage.services.reports.keep_due()
    stage.clock.passes(seconds=-86_396)  # a second before the next attempt
    writes = commits()
    await deliver(stage)
    assert await stage.services.reports.keep_due() == []
    await stage.services.webhooks.tell_backlog(stage.services.reviews.backlogs())
    assert commits() == writes
    stage.clock.passes(seconds=1)
    await deliver(stage)
    assert commits() > writes


async def test_a_slow_receiver_costs_one_deadline_and_holds_up_no_other(stage: Stage, receiver: Peer) -> None:
    services = stage.services
    impatient = Webhooks(services.plane, stage.ledger, services.notices, now=stage.clock.now, deadline_s=0.3)
    with serving() as quick:
        quick.replies(Reply(200))
        await told(stage, receiver)
        await told(stage, quick)
        receiver.hangs()
        for _ in range(7):
            await say(stage, Kind.REPORT)
        await impatient.deliver()
        await impatient.close()
        assert len(quick.seen) == 5  # some of each, however many wait
    outcomes = services.webhooks.log(status="waiting", limit=100)
    assert {row["error"] for row in outcomes} == {None, "no answer within 0.3 s"}
    assert len(services.webhooks.log(status="delivered", limit=100)) == 3 + 5


async def test_410_ends_a_webhook_and_the_plane_remembers_it(any_stage: Stage, receiver: Peer) -> None:
    added = await told(any_stage, receiver)
    receiver.replies(Reply(410))
    for _ in range(7):
        await say(any_stage, Kind.REPORT)
    await deliver(any_stage)
    failed = any_stage.services.webhooks.log(status="failed", limit=100)
    assert (len(failed), len(receiver.seen)) == (7, 5)
    assert {row["error"] for row in failed} == {"answered 410", "the webhook has ended"}
    assert any_stage.services.webhooks.all() == []
    history = any_stage.services.administration.audit(TransitionFilters("*"), cursor=None, limit=1)
    (ended,) = history["transitions"]
    assert (ended["kind"], ended["automatic"]) == ("webhook", True)
    assert ended["reason"] == f"it answered 410: {added['id']}"
    await hold(any_stage)
    assert any_stage.services.webhooks.log(status="waiting", limit=100) == []


async def test_a_notice_outlives_the_server_that_made_it(
    database: Database, tmp_path: Path, receiver: Peer
) -> None:
    clock = Clock()
    async with opened(database, tmp_path, clock=clock) as before:
        await told(before, receiver)
        await hold(before)
        holders = before.keys
    async with opened(database, tmp_path, clock=clock, holders=holders) as after:
        await deliver(after)
    assert [seen.body["data"]["kind"] for seen in receiver.seen] == ["hold"]


async def test_a_transition_that_is_not_committed_is_not_told(stage: Stage, receiver: Peer) -> None:
    await told(stage, receiver)
    rows = stage.rows(t.deliveries)

    def fails(tx: Transaction) -> None:
        enqueue(tx, kind=Kind.REPORT, body={"sentence": "too early"}, now_us=0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await stage.ledger.run(fails)
    assert stage.rows(t.deliveries) == rows


async def test_two_senders_never_claim_the_same_delivery(any_stage: Stage, receiver: Peer) -> None:
    await told(any_stage, receiver)
    await hold(any_stage)
    now_us = any_stage.services.now_us()
    [claimed] = await any_stage.ledger.run(lambda tx: claim_due(tx, now_us=now_us))
    await deliver(any_stage)
    assert receiver.seen == []
    any_stage.clock.passes(microseconds=CLAIM_US)  # the first one died
    await deliver(any_stage)
    assert [seen.headers["webhook-id"] for seen in receiver.seen] == [claimed.id]
    assert last(any_stage)["attempts"] == 2


async def test_a_webhook_is_told_only_what_it_asked_for_and_of_tests(stage: Stage, receiver: Peer) -> None:
    added = await told(stage, receiver, "report", "guardrail")
    await hold(stage)
    await say(stage, Kind.REPORT, period="daily")
    await stage.services.webhooks.test(added["id"])
    await deliver(stage)
    told_of = {seen.body["type"]: seen.body for seen in receiver.seen}
    assert set(told_of) == {"phasegate.report", "phasegate.test"}
    assert (told_of["phasegate.report"]["text"], told_of["phasegate.report"]["data"]) == (
        "so it is",
        {"sentence": "so it is", "period": "daily"},
    )


async def test_no_words_of_an_operator_can_call_a_whole_channel(stage: Stage, receiver: Peer) -> None:
    await told(stage, receiver)
    await hold(stage, "<!channel> a & b\nread: fine")
    await deliver(stage)
    assert receiver.seen[0].body["text"].endswith("&lt;!channel&gt; a &amp; b read: fine")


async def test_no_situation_leaves_the_plane(stage: Stage, receiver: Peer) -> None:
    await told(stage, receiver)
    await stage.enter("deploy", Phase.ENFORCED)
    decided = await stage.decide(
        "deploy", actor="somebody-known", model="allow", team_context="a secret plan"
    )
    body = {"decision": "deny", "notes": "what I think of it"}
    await stage.call("POST", f"/v1/decisions/{decided['id']}/report", body, who="operator")
    await deliver(stage)
    said = " ".join(seen.raw.decode() for seen in receiver.seen)
    assert "the service rolled deploy back" in said
    for private in ("somebody-known", "a secret plan", "what I think of it"):
        assert private not in said


async def test_a_webhook_that_was_removed_is_told_nothing_more(stage: Stage, receiver: Peer) -> None:
    added = await told(stage, receiver)
    await hold(stage)
    by = stage.principal("operator")
    await stage.services.webhooks.remove(added["id"], by=by)
    await deliver(stage)
    assert receiver.seen == []
    for again in (
        stage.services.webhooks.remove(added["id"], by=by),
        stage.services.webhooks.test(added["id"]),
    ):
        with pytest.raises(NotFound, match="no webhook"):
            await again


async def test_reviews_that_wait_too_long_are_told_of(stage: Stage, receiver: Peer) -> None:
    await told(stage, receiver)
    await stage.services.webhooks.tell_backlog(stage.services.reviews.backlogs())
    await stage.enter("read", Phase.ENFORCED)
    await stage.decide()
    await stage.until(lambda: stage.rows(t.reviews))
    stage.clock.passes(hours=25)
    await stage.services.webhooks.tell_backlog(stage.services.reviews.backlogs())
    await deliver(stage)
    [seen] = [seen for seen in receiver.seen if seen.body["type"] == "phasegate.review_backlog"]
    assert seen.body["text"] == "reviews wait too long: 1 of 1 in read"
    assert (seen.body["data"]["rollouts"]["read"]["late"]) == 1


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "ftp://example.com",
            "example.com/hook",
            "https://",
            "https://a\nb/",
            f"http://a/{'x' * 2_048}",
        ),
        *("http://127.0.0.1:65536/", "http://xn--a/"),
    ],
)
async def test_what_is_no_address_is_refused(stage: Stage, url: str) -> None:
    with pytest.raises(InvalidInput, match="url: must be an http or https address"):
        await stage.services.webhooks.add(url=url, kinds=(), by=stage.principal("operator"))


async def test_a_kind_that_there_is_not_is_refused(stage: Stage) -> None:
    with pytest.raises(InvalidInput, match="kinds: 'test' is none of transition, guardrail"):
        await stage.services.webhooks.add(url="http://a", kinds=["test"], by=stage.principal("operator"))


async def test_old_deliveries_leave_the_log_and_waiting_ones_stay(stage: Stage, receiver: Peer) -> None:
    await told(stage, receiver)
    stage.clock.passes(days=30)
    await hold(stage)
    now_us = stage.services.now_us()
    await stage.services.webhooks.forget(before_us=now_us)
    assert [row["status"] for row in stage.services.webhooks.log(status=None, limit=9)] == ["waiting"]


async def test_the_secret_is_shown_once_and_logged_never(stage: Stage, receiver: Peer) -> None:
    structlog.reset_defaults()  # whatever level another test has set
    with structlog.testing.capture_logs() as lines:
        body = {
            "url": f"{receiver.url.replace('//', '//me:pass-word@')}/pa-th?to-ken",
            "kinds": ["transition"],
        }
        added = (await stage.call("POST", "/v1/webhooks", body, who="operator")).json()
        await deliver(stage)
    assert added["secret"].startswith("whsec_")
    shown = [
        (await stage.call("GET", path)).text
        for path in ("/v1/webhooks", "/v1/webhooks/deliveries", "/v1/audit")
    ]
    assert added["id"] in shown[0]
    for text in (*shown, str(lines), receiver.seen[0].raw.decode()):
        for secret in (added["secret"], "pass-word", "pa-th", "to-ken"):
            assert secret not in text
    assert receiver.seen[0].path == "/pa-th?to-ken"


async def test_webhooks_over_http_from_the_first_to_the_last(stage: Stage, receiver: Peer) -> None:
    added = (await stage.call("POST", "/v1/webhooks", {"url": receiver.url}, who="operator")).json()
    (listed,) = (await stage.call("GET", "/v1/webhooks", who="operator")).json()["webhooks"]
    assert listed["kinds"] == ["transition", "guardrail", "report", "review_backlog"]
    sent = (await stage.call("POST", f"/v1/webhooks/{added['id']}/test", who="operator")).json()
    assert (sent["status"], sent["kind"], sent["attempts"]) == ("waiting", "test", 0)
    await deliver(stage)
    delivered = await stage.call("GET", "/v1/webhooks/deliveries?status=delivered&limit=1", who="auditor")
    assert [row["id"] for row in delivered.json()["deliveries"]] == [sent["id"]]
    assert (await stage.call("DELETE", f"/v1/webhooks/{added['id']}", who="operator")).status_code == 200
    assert (await stage.call("DELETE", f"/v1/webhooks/{added['id']}", who="operator")).status_code == 404
    answer = await stage.call("POST", "/v1/webhooks", {"url": "nowhere"}, who="operator")
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid-input")


async def test_a_decision_waits_for_no_webhook(stage: Stage, receiver: Peer) -> None:
    await told(stage, receiver)
    await stage.call("POST", "/v1/decisions", situation(), who="caller")
    await deliver(stage)
    assert receiver.seen == []
