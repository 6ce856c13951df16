"""Does the command write the report that the server tells, in the form that is asked for?"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.peer import Peer, Reply

ROLLOUT_FREE: dict[str, Any] = {
    "id": "weekly-2027-01-11",
    "period": "weekly",
    "starts_at": "2027-01-11T00:00:00.000000Z",
    "ends_at": "2027-01-18T00:00:00.000000Z",
    "complete": True,
    "made_at": "2027-01-18T00:01:00.000000Z",
    "summary": {"met": 1, "unmet": 0, "unknown": 0},
    "checklist": [],
    "rollouts": [],
    "disagreements": {"looked_at": 0, "found": 0, "clusters": []},
    "edge_cases": [],
    "reviewers": {
        "by_mode": {},
        "doubles": {"n": 0, "agreement": None, "ac1": None},
        "backlog": [],
        "satisfaction": {"n": 0, "mean": None, "by_score": {}},
    },
    "uptime": {"counted_from": "2027-01-11T00:00:00.000000Z", "wall_s": 0, "plane_s": 0, "model_s": 0},
    "compute": dict.fromkeys(("answers", "model_s", "answers_per_model_s", "prompt_tokens", "worker_cpu_s")),
    "bounds": ["Figures are sums."],
}


@pytest.mark.parametrize(
    ("form", "begins"), [("md", "# Phasegate, weekly report"), ("html", "<!doctype html>")]
)
def test_a_report_is_written_in_its_form(peer: Peer, run: Run, form: str, begins: str) -> None:
    peer.replies(Reply(200, ROLLOUT_FREE))
    result = run("report", "weekly", "--at", "2027-01-12", "--format", form)
    assert (result.exit_code, result.stdout[: len(begins)]) == (0, begins)
    assert peer.seen[-1].path == "/v1/reports/weekly?at=2027-01-12"


def test_json_is_the_servers_own(peer: Peer, run: Run) -> None:
    peer.replies(Reply(200, ROLLOUT_FREE))
    assert json.loads(run("report", "weekly", "--format", "json").stdout) == ROLLOUT_FREE


def test_an_output_file_leaves_stdout_alone(peer: Peer, run: Run, tmp_path: Path) -> None:
    peer.replies(Reply(200, ROLLOUT_FREE))
    path = tmp_path / "report.html"
    result = run("report", "weekly", "--format", "html", "--output", str(path))
    assert (result.exit_code, result.stdout) == (0, "")
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
