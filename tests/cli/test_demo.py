"""Does the demo tell a true story to the end?"""

import itertools
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    some = list(itertools.islice(stream(1, ("read", "deploy")), 200))
    assert [parse_situation(each).action_type for each in some] == ["read", "deploy"] * 100
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
            "sentence": "agreement 90 % of 50",
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
        "✓ agreement 90 % of 50",
        "· nothing seen",
        "· soak 0 s of 9 s",
        "✗ one is open",
    ]
    assert missing_line(GATE) == "error 36 more, soak, investigation"


@pytest.mark.parametrize("name", ["error", "self_disagreement"])
def test_a_guardrails_line_says_what_it_saw(name: str) -> None:
    guardrail = {"name": name, "outcome": "insufficient", "sentence": "error rate 20 % of 40, limit 5 %"}
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


def demo(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "app.cli", "demo", "--json", *options]
    return subprocess.Popen(command, cwd=POLICIES.parent, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def shown() -> Iterator[list[dict[str, Any]]]:
    """The lines of the whole story, while its server is still there for visitors."""
    with demo("--keep") as running:
        assert running.stdout is not None
        lines = []
        for line in map(json.loads, running.stdout):
            lines.append(line)
            if line["event"] == "kept":
                break
        yield lines
        running.send_signal(signal.SIGTERM)
    assert running.returncode == 0


@pytest.mark.model
def test_the_demo_tells_of_an_automatic_rollback_to_its_end(shown: list[dict[str, Any]]) -> None:
    acts = ("rollback", "legacy", "refused", "end", "kept", "trouble")
    rises = [(line["rollout"], line["to"]) for line in shown if line["event"] == "promoted"]
    assert [line["event"] for line in shown if line["event"] in acts] == [*acts[:-1]], shown[-1]
    assert rises == [(name, to) for name in ("read", "write") for to in ("advisory", "enforced")]
    passed = [
        (line["gate"]["rollout"], line["gate"]["to"])
        for line in shown
        if line["event"] == "gate" and line["gate"]["outcome"] == "pass"
    ]
    assert passed == rises
    [rollback] = [line for line in shown if line["event"] == "rollback"]
    assert rollback["transition"]["automatic"] is True
    [summary] = [line for line in shown if line["event"] == "summary"]
    assert summary["lost"] == 0
    assert summary["answered_by"]["model"] > 0


@pytest.mark.model
def test_a_visitor_of_the_demo_finds_every_phase_a_rollback_a_candidate_and_work(
    shown: list[dict[str, Any]],
) -> None:
    kept = shown[-1]
    with httpx.Client(base_url=kept["url"], headers={"Authorization": f"Bearer {kept['key']}"}) as admin:
        rollouts = {each["name"]: each for each in admin.get("/v1/rollouts").json()["rollouts"]}
        [experiment] = admin.get("/v1/experiments").json()["experiments"]
        judged, still_open = (
            {each["rollout"] for each in admin.get("/v1/reviews", params=of).json()["reviews"]}
            for of in ({"status": "judged", "limit": "200"}, {"status": "open", "limit": "200"})
        )
    seen = {name: (each["phase"], each["exposure"]) for name, each in rollouts.items()}
    assert (seen["write"], seen["read"][0], seen["commit"][0]) == (("enforced", 0.5), "advisory", "shadow")
    assert rollouts["read"]["status"]["state"] == "rolled_back"
    assert (experiment["rollout"], sum(experiment["paired"]["agreement"].values()) > 0) == ("commit", True)
    assert judged >= {"write", "commit"}
    assert still_open >= {"read", "admin"}
    with httpx.Client(follow_redirects=True, headers={"Origin": kept["url"]}) as guest:
        form = re.search(r'name="form" value="([^"]+)"', guest.get(kept["link"]).text)
        assert form is not None
        assert guest.post(kept["link"], data={"form": form[1]}).is_success
        assert "Rolled back to advisory" in guest.get(kept["url"]).text


@pytest.mark.model
def test_a_demo_that_is_ended_takes_its_server_with_it_and_is_no_success() -> None:
    with demo() as running:
        assert running.stdout is not None
        ready = next(line for line in map(json.loads, running.stdout) if line["event"] == "ready")
        running.send_signal(signal.SIGTERM)
        *_, last = map(json.loads, running.stdout)
    assert (running.returncode, last["event"]) == (1, "stopped")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{ready['url']}/health")
