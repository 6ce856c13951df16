"""Do the commands about versions ask the server the right thing?"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.test_remote import GATE, READ, REASON, rollout_then
from tests.peer import Peer, Reply, problem

FIRST: dict[str, Any] = {
    "id": "v1",
    "state": "active",
    "loaded": True,
    "model": "m.gguf",
    "parent": None,
    "created_at": "2027-01-15T09:00:00Z",
    "rollouts": {"read": "active", "write": "candidate"},
}


def test_versions_alone_lists_them_with_their_rollouts(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, {"versions": [FIRST]}))
    row = run("versions").stdout.splitlines()[1]
    assert row.split()[:3] == ["v1", "active", "yes"]
    assert row.endswith("read: active, write: candidate")


def test_versions_with_an_id_shows_it(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, {"versions": [FIRST]}), Reply(200, {"versions": [FIRST]}))
    assert json.loads(run("versions", "v1", "--json").stdout) == FIRST
    assert "m.gguf" in run("versions", "show", "v1").stdout


def test_a_version_that_is_not_there_is_an_error_that_names_those_that_are(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, {"versions": [FIRST]}))
    result = run("versions", "v9")
    assert result.exit_code == 1
    assert "there are v1" in result.stderr


def test_a_candidate_sees_everything_unless_it_is_split(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, READ), Reply(200, READ))
    assert run("versions", "candidate", "read", "v2", *REASON).stderr == "v2 is the candidate of read\n"
    run("versions", "candidate", "read", "v2", "--split", "20", *REASON)
    assert peer.seen[0].path == "/v1/rollouts/read/version"
    whole = {"action": "candidate", "reason": "because", "version": "v2"}
    assert [seen.body for seen in peer.seen] == [whole, {**whole, "mode": "split", "share": 0.2}]


def test_activate_sends_the_revision_that_it_read(peer: Peer, run: Run) -> None:
    rollout_then(Reply(200, {**READ, "version": "v2"}), peer)
    result = run("versions", "activate", "read", *REASON)
    assert (result.exit_code, result.stderr) == (0, "read runs on v2\n")
    assert peer.seen[-1].body == {
        "action": "activate",
        "reason": "because",
        "version": None,
        "expected_revision": 7,
    }


def test_a_candidate_whose_gate_is_not_met_exits_3(peer: Peer, run: Run) -> None:
    rollout_then(Reply(409, problem(409, "gate-not-met", "Gate not met", detail="too few", gate=GATE)), peer)
    result = run("versions", "activate", "read", "v2", *REASON)
    assert result.exit_code == 3
    assert "about 8 more" in result.stdout


def test_revert_and_withdraw_name_no_version(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, READ), Reply(200, READ))
    assert run("versions", "revert", "read", *REASON).stderr == "read is in shadow on v1\n"
    assert run("versions", "withdraw", "read", *REASON).stderr == "read has no candidate\n"
    assert [seen.body for seen in peer.seen] == [
        {"action": "revert", "reason": "because"},
        {"action": "withdraw", "reason": "because"},
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("v1.yaml", "id: v1\nmodel: {path: m.gguf}\n"),
        ("v1.json", '{"id": "v1", "model": {"path": "m.gguf"}}'),
    ],
)
def test_register_sends_an_id_or_the_declaration_in_a_file(
    peer: Peer, run: Run, tmp_path: Path, name: str, text: str
) -> None:
    peer.replies(Reply(200, FIRST), Reply(200, FIRST))
    run("versions", "register", "v1")
    path = tmp_path / name
    path.write_text(text)
    assert run("versions", "register", str(path)).stderr == "v1 is registered\n"
    assert [seen.body for seen in peer.seen] == [{"id": "v1"}, {"id": "v1", "model": {"path": "m.gguf"}}]


@pytest.mark.parametrize("text", ["- id: v1", "v1", ""])
def test_a_file_that_is_no_declaration_is_named_and_sent_nowhere(
    peer: Peer, run: Run, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "v1.yaml"
    path.write_text(text)
    result = run("versions", "register", str(path))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"phasegate: {path}")
    assert not peer.seen


def test_compared_lists_candidates_with_the_outcome_of_their_gate(peer: Peer, run: Run) -> None:
    trial = {"rollout": "read", "active": "v1", "candidate": "v2", "mode": "both", "since": "s", "gate": GATE}
    peer.replies(Reply(200, {"experiments": [trial]}), Reply(200, {"experiments": []}))
    assert run("versions", "compared").stdout.splitlines()[1].split()[-1] == "insufficient"
    assert run("versions", "compared").stderr == "no rollout has a candidate\n"


def test_the_gate_of_a_candidate_is_shown(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, {**GATE, "to": "version"}))
    assert run("gates", "read", "--to", "version").exit_code == 0
    assert peer.seen[0].path == "/v1/rollouts/read/gate?to=version"
