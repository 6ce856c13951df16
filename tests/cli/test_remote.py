"""Do commands ask the server the right thing, and exit as it answered?"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.peer import Peer, Reply, Seen, problem

READ: dict[str, Any] = {
    "name": "read",
    "phase": "shadow",
    "exposure": 1.0,
    "ceiling": "enforced",
    "risk": "low",
    "version": "v1",
    "revision": 7,
    "status": {"state": "not_yet", "sentence": "not yet ready for advisory"},
}
GATE: dict[str, Any] = {
    "rollout": "read",
    "to": "advisory",
    "outcome": "insufficient",
    "sentence": "agreement is not proved yet",
    "conditions": [
        {"name": "agreement", "outcome": "insufficient", "eta": 86_400.0, "sentence": "about 8 more"},
        {"name": "held", "outcome": "pass", "eta": None, "sentence": "not held"},
    ],
}
ERROR_GUARDRAIL = {"name": "error", "outcome": "ok", "action": "rollback", "sentence": "error rate 0 of 3"}
REASON = ("--reason", "because")


def rollout_then(reply: Reply, peer: Peer) -> None:
    peer.answer = lambda seen: Reply(200, READ) if seen.method == "GET" else reply


def test_rollouts_alone_lists_them(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, {"rollouts": [READ]}))
    result = run("rollouts")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split()[:3] == ["read", "shadow", "100%"]
    assert peer.seen[0].headers["authorization"] == "Bearer pg_test"


def test_rollouts_with_a_name_shows_it(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, READ))
    result = run("rollouts", "read", "--json")
    assert json.loads(result.stdout) == READ
    assert peer.seen[0].path == "/v1/rollouts/read"


def test_a_rollout_is_shown_with_its_guardrails_and_its_gate(peer: Peer, run: Run) -> None:
    facts = dict.fromkeys(("actions", "when", "exposure_steps", "combine", "approval", "candidate"))
    facts |= dict.fromkeys(("previous", "epoch", "epoch_started_at"))
    peer.replies(Reply(200, {**facts, **READ, "guardrails": [ERROR_GUARDRAIL], "gate": GATE}))
    result = run("rollouts", "show", "read")
    assert result.exit_code == 0
    assert "error rate 0 of 3" in result.stdout
    assert "about 8 more" in result.stdout
    assert result.stderr == "read to advisory: insufficient: 1 of 2 conditions do not hold yet\n"


def test_promote_sends_the_revision_that_it_read(peer: Peer, run: Run) -> None:
    rollout_then(Reply(200, {**READ, "phase": "advisory"}), peer)
    result = run("promote", "read", "--to", "advisory", *REASON)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "read is in advisory\n")
    assert peer.seen[-1].body == {"to": "advisory", "reason": "because", "expected_revision": 7}


def test_promote_with_a_revision_reads_none(peer: Peer, run: Run) -> None:
    rollout_then(Reply(200, READ), peer)
    run("promote", "read", "--to", "advisory", "--revision", "3", *REASON)
    [seen] = peer.seen
    assert seen.body["expected_revision"] == 3


def test_a_gate_that_is_not_met_is_shown_and_exits_3(peer: Peer, run: Run) -> None:
    rollout_then(Reply(409, problem(409, "gate-not-met", "Gate not met", detail="too few", gate=GATE)), peer)
    result = run("promote", "read", "--to", "advisory", *REASON)
    assert result.exit_code == 3
    assert result.stdout.splitlines()[1].split() == [
        "agreement",
        "insufficient",
        "1",
        "d",
        "about",
        "8",
        "more",
    ]
    assert result.stderr == "read to advisory: insufficient: 1 of 2 conditions do not hold yet\n"


def test_an_approval_of_what_does_not_hold_shows_the_gate_and_exits_3(peer: Peer, run: Run) -> None:
    rollout_then(Reply(409, problem(409, "gate-not-met", "Gate not met", detail="too few", gate=GATE)), peer)
    result = run("approve", "read", "--to", "advisory", *REASON)
    assert (result.exit_code, "about 8 more" in result.stdout) == (3, True)


def test_freezes_are_listed_with_what_is_open_now(peer: Peer, run: Run) -> None:
    peer.replies(
        Reply(200, {"freezes": [{"id": "f1", "kind": "deny", "active": True, "reason": "holidays"}]})
    )
    result = run("freeze", "list")
    assert result.stdout.splitlines()[1].split() == ["f1", "deny", *["-"] * 5, "yes", "holidays"]
    assert peer.seen[0].path == "/v1/freezes"


def test_a_refusal_in_json_is_the_problem_document(peer: Peer, run: Run) -> None:
    refusal = problem(409, "gate-not-met", "Gate not met", gate=GATE)
    rollout_then(Reply(409, refusal), peer)
    result = run("promote", "read", "--to", "advisory", "--json", *REASON)
    assert result.exit_code == 3
    assert json.loads(result.stdout) == refusal


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, "unauthorized", 4),
        (403, "role", 4),
        (403, "ceiling", 4),
        (404, "not-found", 1),
        (409, "revision-conflict", 5),
        (409, "held", 5),
        (409, "gate-not-met", 3),
        (422, "invalid-input", 2),
        (500, "internal", 1),
    ],
)
def test_each_refusal_has_its_exit_code(peer: Peer, run: Run, status: int, kind: str, code: int) -> None:
    rollout_then(Reply(status, problem(status, kind, "Refused", detail="for a reason")), peer)
    result = run("promote", "read", "--to", "advisory", *REASON)
    assert result.exit_code == code
    assert result.stderr == "phasegate: for a reason\n"


def test_a_server_that_is_not_there_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEGATE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("PHASEGATE_KEY", "pg_test")
    monkeypatch.setattr("app.cli.remote.MANAGEMENT_DEADLINE_S", 0.2)
    result = run("rollouts")
    assert result.exit_code == 1
    assert "http://127.0.0.1:1" in result.stderr
    assert "does the server run?" in result.stderr


def test_no_key_anywhere_exits_4_and_says_where_it_looked(run: Run, tmp_path: Path) -> None:
    result = run("rollouts")
    assert result.exit_code == 4
    assert str(tmp_path / "data" / "admin.key") in result.stderr


@pytest.mark.parametrize("key", ["pg_ü", "pg_a\nb"])
def test_a_key_that_is_none_is_named(
    peer: Peer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("PHASEGATE_KEY", key)
    result = run("rollouts")
    assert (result.exit_code, result.stderr[:26]) == (2, "phasegate: PHASEGATE_KEY: ")
    monkeypatch.delenv("PHASEGATE_KEY")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.key").write_bytes(b"\xff\xfe")
    assert "admin.key: is no key" in run("rollouts").stderr
    assert not peer.seen


def test_the_key_is_read_from_the_data_directory(
    peer: Peer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PHASEGATE_KEY")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.key").write_text("pg_admin\n")
    peer.replies(Reply(200, {"rollouts": []}))
    run("rollouts")
    assert peer.seen[0].headers["authorization"] == "Bearer pg_admin"


def test_a_key_file_of_ones_own_comes_before_it(
    peer: Peer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PHASEGATE_KEY")
    (tmp_path / "mine").write_text("pg_mine")
    monkeypatch.setenv("PHASEGATE_KEY_FILE", str(tmp_path / "mine"))
    peer.replies(Reply(200, {"rollouts": []}))
    run("rollouts")
    assert peer.seen[0].headers["authorization"] == "Bearer pg_mine"


ACTS: list[tuple[tuple[str, ...], str, Any]] = [
    (("rollback", "read", *REASON), "/v1/rollouts/read/rollback", {"reason": "because"}),
    (("hold", "read", *REASON), "/v1/rollouts/read/hold", {"reason": "because"}),
    (("resume", "read", *REASON), "/v1/rollouts/read/resume", {"reason": "because"}),
    (
        ("exposure", "read", "25", *REASON),
        "/v1/rollouts/read/exposure",
        {"exposure": 0.25, "reason": "because", "expected_revision": 7},
    ),
    (
        ("approve", "read", "--to", "enforced", *REASON),
        "/v1/rollouts/read/approve",
        {"to": "enforced", "reason": "because", "expected_revision": 7},
    ),
    (
        ("freeze", "add", "--from", "2027-01-01T18:00", "--until", "2027-01-02", "--weekly", *REASON),
        "/v1/freezes",
        {
            "kind": "deny",
            "rollout": "*",
            "starts_at": "2027-01-01T18:00",
            "ends_at": "2027-01-02",
            "weekly": True,
            "zone": "UTC",
            "reason": "because",
        },
    ),
    (("freeze", "end", "f1", *REASON), "/v1/freezes/f1/end", {"reason": "because"}),
    (
        ("ramp", "start", "read", "--to", "50", *REASON),
        "/v1/rollouts/read/ramp",
        {"action": "start", "reason": "because", "to": 0.5, "expected_revision": 7},
    ),
    (
        ("ramp", "stop", "read", *REASON),
        "/v1/rollouts/read/ramp",
        {"action": "stop", "reason": "because"},
    ),
    (
        ("investigation", "read", "--cause", "prompt", "--fix", "a new one"),
        "/v1/rollouts/read/investigation",
        {"cause": "prompt", "fix": "a new one"},
    ),
    (("kill", "engage", *REASON), "/v1/kill-switch", {"engaged": True, "reason": "because"}),
    (("kill", "release", *REASON), "/v1/kill-switch", {"engaged": False, "reason": "because"}),
    (("reviews", "claim", "r1"), "/v1/reviews/r1/claim", {}),
    (("reviews", "undo", "r1"), "/v1/reviews/r1/undo", {}),
]


@pytest.mark.parametrize(("arguments", "path", "body"), ACTS, ids=[" ".join(each[0]) for each in ACTS])
def test_an_act_is_one_post(peer: Peer, run: Run, arguments: tuple[str, ...], path: str, body: Any) -> None:
    rollout_then(Reply(200, {"revision": 8}), peer)
    result = run(*arguments, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"revision": 8}
    assert (peer.seen[-1].method, peer.seen[-1].path, peer.seen[-1].body) == ("POST", path, body)


@pytest.mark.parametrize("command", ["rollback", "hold", "resume", "exposure", "promote", "kill"])
def test_no_lever_moves_without_a_reason(peer: Peer, run: Run, command: str) -> None:
    arguments = {"promote": ("read", "--to", "advisory"), "exposure": ("read", "5"), "kill": ("engage",)}
    assert run(command, *arguments.get(command, ("read",))).exit_code == 2
    assert peer.seen == []


def test_a_ramp_is_shown_with_what_its_next_step_waits_for(peer: Peer, run: Run) -> None:
    facts = dict.fromkeys(("steps", "started_by", "started_at"))
    facts |= {"state": "running", "step": 0.05, "next": 0.25, "step_started_at": None}
    shown = {**facts, "sentence": "waits at 5 %: served 1 h of 1 day", "conditions": GATE["conditions"]}
    peer.replies(Reply(200, {**READ, "ramp": shown}))
    result = run("ramp", "read")
    assert result.exit_code == 0
    assert "agreement  insufficient  1 d  about 8 more" in result.stdout
    assert result.stderr == "waits at 5 %: served 1 h of 1 day\n"


def test_a_rollout_without_a_ramp_says_how_to_start_one(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, {**READ, "ramp": None}))
    assert "phasegate ramp start read" in run("ramp", "read").stderr


def test_gates_with_a_name_shows_the_next_gate(peer: Peer, run: Run) -> None:
    peer.answer = lambda seen: Reply(200, GATE if "/gate" in seen.path else READ)
    result = run("gates", "read")
    assert result.exit_code == 0
    assert peer.seen[-1].path == "/v1/rollouts/read/gate?to=advisory"
    assert result.stdout.splitlines()[1].split()[:2] == ["agreement", "insufficient"]


def test_guardrails_with_a_name_lists_them(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, {"guardrails": [ERROR_GUARDRAIL]}))
    result = run("guardrails", "read")
    assert result.stdout.splitlines()[1].split()[:3] == ["error", "ok", "rollback"]


def test_decide_takes_options_and_json_together(peer: Peer, run: Run) -> None:
    peer.replies(
        Reply(200, {"decision": "allow", "final": True, "legacy": {"decision": "allow", "rule": "r"}})
    )
    options = ("--action", "read", "--role", "member", "--actor", "ada", "--trust", "0.8,0.9,1")
    result = run("decide", "-", *options, stdin='{"details": {"ticket": 4}}')
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].split() == ["decision", "allow"]
    assert peer.seen[0].body == {
        "details": {"ticket": 4},
        "action_type": "read",
        "actor_role": "member",
        "actor_id": "ada",
        "t3_tensor": {"competence": 0.8, "reliability": 0.9, "integrity": 1.0},
    }


def test_a_deny_is_an_answer_and_no_failure(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, {"decision": "deny", "final": True}))
    assert run("decide", "--json").exit_code == 0


@pytest.mark.parametrize("arguments", [("--trust", "high"), ("--trust", "0.1,0.2"), ("-",)])
def test_a_situation_that_cannot_be_read_is_a_usage_error(
    peer: Peer, run: Run, arguments: tuple[str, ...]
) -> None:
    assert run("decide", *arguments, stdin="[not json").exit_code == 2
    assert peer.seen == []


def test_reviews_lists_the_open_ones(peer: Peer, run: Run) -> None:
    review = {
        "id": "r1",
        "status": "open",
        "situation": {"action_type": "read"},
        "legacy": {"decision": "deny"},
    }
    peer.replies(Reply(200, {"reviews": [review]}))
    result = run("reviews", "--rollout", "read")
    assert sorted(peer.seen[0].path.partition("?")[2].split("&")) == ["rollout=read", "status=open"]
    assert result.stdout.splitlines()[1].split()[0] == "r1"


def test_a_verdict_says_what_followed(peer: Peer, run: Run) -> None:
    feedback = {"match": False, "llm_decision": "allow", "rollback": {"reason": "a confirmed wrong allow"}}
    peer.replies(Reply(200, feedback))
    result = run("reviews", "verdict", "r1", "deny", "--category", "model_too_permissive", "--notes", "n")
    assert peer.seen[0].body == {"decision": "deny", "category": "model_too_permissive", "notes": "n"}
    assert "the model said allow" in result.stderr
    assert "rolled back: a confirmed wrong allow" in result.stderr


def test_a_new_key_is_the_only_data_on_stdout(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, {"id": "k1", "key": "pg_k1_secret"}))
    result = run("keys", "create", "ada", "--role", "reviewer", "--role", "operator", "--actor", "ada")
    assert result.stdout == "pg_k1_secret\n"
    assert peer.seen[0].body == {"name": "ada", "roles": ["reviewer", "operator"], "actors": ["ada"]}


def test_keys_are_listed_and_revoked(peer: Peer, run: Run) -> None:
    def answer(seen: Seen) -> Reply:
        return Reply(200, {"keys": [{"id": "k1", "name": "ada"}]} if seen.method == "GET" else {"id": "k1"})

    peer.answer = answer
    assert run("keys").stdout.splitlines()[1].split()[:2] == ["k1", "ada"]
    assert run("keys", "revoke", "k1").exit_code == 0
    assert (peer.seen[-1].method, peer.seen[-1].path) == ("DELETE", "/v1/keys/k1")


def test_policies_diff_says_who_must_agree(peer: Peer, run: Run) -> None:
    change = {"rollout": "read", "key": "ceiling", "before": "advisory", "after": "enforced", "loosens": True}
    peer.replies(Reply(200, {"changes": [change], "loosens": True, "to_shadow": ["read"]}))
    result = run("policies", "diff")
    assert "two people apply it; back to shadow: read" in result.stderr
    assert result.stdout.splitlines()[1].split() == ["read", "ceiling", "advisory", "enforced", "yes"]


def test_policies_apply_says_what_became_of_it(peer: Peer, run: Run) -> None:
    peer.replies(
        Reply(200, {"status": "proposed", "changes": []}), Reply(200, {"status": "applied", "changes": []})
    )
    assert "an approver other than you" in run("policies", "apply").stderr
    assert run("policies", "apply").stderr == "applied\n"


@pytest.mark.parametrize(("kind", "code"), [("nothing-to-apply", 0), ("own-request", 5)])
def test_to_apply_what_is_in_force_is_no_failure(peer: Peer, run: Run, kind: str, code: int) -> None:
    peer.replies(Reply(409, problem(409, kind, "Conflict", detail="for a reason")))
    assert run("policies", "apply").exit_code == code
