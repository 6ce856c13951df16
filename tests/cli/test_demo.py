"""Does the demo tell a true story to the end?"""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.demo.server import prepare_policies
from app.cli.demo.situations import careful_verdict, stream
from app.cli.demo.story import Story, gate_lines, guardrail_line
from app.domain.situation import parse_situation
from app.policy.rollouts import load_rollouts

POLICIES = Path(__file__).parents[2] / "policies"


def test_the_stream_is_the_same_for_the_same_seed_and_never_repeats_itself() -> None:
    some = list(itertools.islice(stream(1), 200))
    assert some == list(itertools.islice(stream(1), 200))
    assert len({json.dumps(situation) for situation in some}) == 200
    assert some != list(itertools.islice(stream(2), 200))


def test_every_situation_of_the_stream_is_well_formed_and_judged() -> None:
    some = list(itertools.islice(stream(1), 200))
    assert all(parse_situation(situation).action_type == "read" for situation in some)
    assert {careful_verdict(situation) for situation in some} == {"allow", "require_attestation"}


def test_the_reviewer_sees_the_history_that_rules_cannot_read() -> None:
    trusted = {"t3_tensor": {"competence": 0.9, "reliability": 0.9, "integrity": 0.9}}
    assert careful_verdict(trusted) == "allow"
    assert careful_verdict({**trusted, "recent_history": "MFA was bypassed at the 6th attempt"}) != "allow"


def test_the_demos_policy_stands_in_for_the_real_one(tmp_path: Path) -> None:
    prepared = prepare_policies(POLICIES, tmp_path / "policies")
    demo, real = load_rollouts(prepared / "rollouts.yaml"), load_rollouts(POLICIES / "rollouts.yaml")
    assert demo.names == real.names
    assert demo.get("read").gates != real.get("read").gates
    assert (prepared / "legacy.yaml").read_bytes() == (POLICIES / "legacy.yaml").read_bytes()


def test_a_story_for_programs_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story(as_json=True)
    story.chapter("One")
    story.tell("gate", "It passes.", gate={"outcome": "pass"})
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["event"], first["sentence"]) == ("chapter", "One")
    assert second["gate"] == {"outcome": "pass"}


def test_lines_carry_the_numbers() -> None:
    conditions = [
        {
            "name": "agreement",
            "outcome": "pass",
            "value": 0.9,
            "sentence": "agreement 0.9 of 50, needs above 0.6",
        },
        {"name": "held", "outcome": "pass", "value": None, "sentence": "not held"},
    ]
    gate = {"to": "advisory", "outcome": "pass", "sentence": "ready", "conditions": conditions}
    assert gate_lines(gate) == ["gate: ready", "  ✓ agreement 0.9 of 50, needs above 0.6"]
    assert gate_lines({**gate, "outcome": "insufficient", "sentence": "not yet"}) == ["gate: not yet"]
    guardrail = {"name": "error", "outcome": "breach", "e_value": 612.4, "threshold": 500.0, "n": 41}
    assert guardrail_line(guardrail) == "guardrail error: breach: E 612.4, threshold 500, n 41"


@pytest.mark.model
def test_the_demo_ends_with_an_automatic_rollback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "demo", "--json"],
        cwd=POLICIES.parent,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, lines[-1:] or done.stderr
    told = [line["event"] for line in lines]
    assert [event for event in told if event in ("promoted", "rollback", "refused")] == [
        "promoted",
        "promoted",
        "rollback",
        "refused",
    ]
    passed = [
        line["gate"]["to"] for line in lines if line["event"] == "gate" and line["gate"]["outcome"] == "pass"
    ]
    assert passed == ["advisory", "enforced"]
    [rollback] = [line for line in lines if line["event"] == "rollback"]
    assert rollback["transition"]["automatic"] is True
    [summary] = [line for line in lines if line["event"] == "summary"]
    assert summary["lost"] == 0
    assert summary["answered_by"]["model"] > 0
