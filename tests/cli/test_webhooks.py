"""Do the commands about webhooks ask the server the right thing?"""

import json

from tests.cli.conftest import Run
from tests.peer import Peer, Reply, Seen

SENT = {"id": "d1", "webhook_id": "w1", "kind": "test", "status": "waiting", "attempts": 0}


def test_a_webhook_is_added_and_its_secret_alone_printed(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, {"id": "w1", "secret": "whsec_abc"}))
    result = run("webhooks", "add", "http://a/hook", "--kind", "report", "--kind", "guardrail")
    assert (result.exit_code, result.stdout) == (0, "whsec_abc\n")
    assert peer.seen[0].body == {"url": "http://a/hook", "kinds": ["report", "guardrail"]}
    assert json.loads(run("webhooks", "add", "http://a/hook", "--json").stdout)["id"] == "w1"


def test_webhooks_are_listed_tested_and_removed(peer: Peer, run: Run) -> None:
    def answer(seen: Seen) -> Reply:
        return Reply(200, {"webhooks": [{"id": "w1", "url": "http://a"}]} if seen.method == "GET" else SENT)

    peer.answer = answer
    assert run("webhooks").stdout.splitlines()[1].split()[:2] == ["w1", "http://a"]
    assert "as d1" in run("webhooks", "test", "w1").stderr
    assert run("webhooks", "remove", "w1").exit_code == 0
    asked = [(seen.method, seen.path) for seen in peer.seen]
    assert asked[1:] == [("POST", "/v1/webhooks/w1/test"), ("DELETE", "/v1/webhooks/w1")]


def test_deliveries_are_shown_by_status(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, {"deliveries": [SENT]}))
    assert run("webhooks", "deliveries").stdout.splitlines()[1].split()[0] == "d1"
    run("webhooks", "deliveries", "--status", "failed", "--limit", "3")
    assert [seen.path for seen in peer.seen] == [
        "/v1/webhooks/deliveries?limit=20",
        "/v1/webhooks/deliveries?status=failed&limit=3",
    ]
