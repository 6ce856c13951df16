"""Does the demo tell a true story to the end?"""

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.cli.demo.people import careful_verdict, stream
from app.cli.demo.server import prepare_policies
from app.cli.demo.story import Story, checklist, guardrail_line, missing_line
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


GATE = {
    "to": "advisory",
    "outcome": "insufficient",
    "conditions": [
        {
            "name": "agreement",
            "outcome": "pass",
            "value": 0.9,
            "needed": 0,
            "sentence": "agreement 0.9 of 50",
        },
        {"name": "error", "outcome": "insufficient", "value": None, "needed": 36, "sentence": "nothing seen"},
        {
            "name": "soak",
            "outcome": "insufficient",
            "value": 0.0,
            "needed": None,
            "sentence": "soak 0 s of 9 s",
        },
        {"name": "held", "outcome": "pass", "value": None, "needed": None, "sentence": "not held"},
        {
            "name": "investigation",
            "outcome": "fail",
            "value": None,
            "needed": None,
            "sentence": "one is open",
        },
    ],
}


def test_a_checklist_shows_what_rests_on_evidence_and_all_that_is_missing() -> None:
    assert checklist(GATE) == [
        "✓ agreement 0.9 of 50",
        "· nothing seen",
        "· soak 0 s of 9 s",
        "✗ one is open",
    ]
    assert missing_line(GATE) == "error 36 more, soak, investigation"


@pytest.mark.parametrize("name", ["error", "self_disagreement"])
def test_a_guardrails_line_says_what_it_saw(name: str) -> None:
    guardrail = {"name": name, "outcome": "insufficient", "sentence": "error rate 0.2 of 40, limit 0.05"}
    assert guardrail_line(guardrail).split() == [name, "insufficient", *guardrail["sentence"].split()]


def test_a_story_for_people_has_its_lines_below(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story(as_json=False)
    story.chapter("One", "It explains.")
    story.tell("gate", "It passes.", below=["because"], gate=GATE)
    assert capsys.readouterr().out.splitlines() == [
        "",
        "One",
        "It explains.",
        "   0.0 s  It passes.",
        " " * 10 + "because",
    ]


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
    acts = ("promoted", "rollback", "legacy", "refused", "end", "trouble")
    assert [event for event in told if event in acts] == [
        "promoted",
        "promoted",
        "rollback",
        "legacy",
        "refused",
        "end",
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


@pytest.mark.model
def test_a_demo_that_is_ended_takes_its_server_with_it_and_is_no_success() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "app.cli", "demo", "--json"],
        cwd=POLICIES.parent,
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        ready = next(line for line in map(json.loads, demo.stdout) if line["event"] == "ready")
        demo.send_signal(signal.SIGTERM)
        *_, last = map(json.loads, demo.stdout)
    assert (demo.returncode, last["event"]) == (1, "stopped")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{ready['url']}/health")
