"""Do the what-if commands print exactly what the tests of EVIDENCE say?"""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

GUARDRAIL = (
    "guardrails",
    "try",
    "--limit",
    "0.05",
    "--alpha",
    "0.01",
    "--gap",
    "3.5714285714285714e-05",
    "-",
)


def lines(samples: str) -> str:
    return "".join(f"{sample}\n" for sample in samples)


@pytest.mark.parametrize(
    ("samples", "alarm_at", "e_value"),
    [
        ("1" * 20, 3, 127.794),
        ("0" * 20 + "1" * 20, 27, 292.793),
        ("0" * 2_000 + "1" * 20, 2_007, 188.753),
        ("00001" * 20, 50, 150.222),
    ],
    ids=["all bad", "bad after 20", "bad after 2000", "one in five"],
)
def test_a_guardrail_alarms_at_the_sample_of_the_vectors(
    run: Run, samples: str, alarm_at: int, e_value: float
) -> None:
    result = run(*GUARDRAIL, "--json", stdin=lines(samples))
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "alarm_at": alarm_at,
        "e_value": pytest.approx(e_value, abs=5e-4),
        "threshold": pytest.approx(100),
        "n": alarm_at,
    }


def test_a_stream_at_the_limit_raises_no_alarm(run: Run) -> None:
    result = run(*GUARDRAIL, "--json", stdin=lines(("0" * 19 + "1") * 700))
    assert json.loads(result.stdout) == {
        "alarm_at": None,
        "e_value": pytest.approx(0.0026574, rel=1e-4),
        "threshold": pytest.approx(100),
        "n": 14_000,
    }


def test_nothing_read_is_no_alarm(run: Run) -> None:
    assert json.loads(run(*GUARDRAIL, "--json", stdin="").stdout) == {
        "alarm_at": None,
        "e_value": 0.5,
        "threshold": pytest.approx(100),
        "n": 0,
    }


def test_reading_stops_at_the_alarm(run: Run) -> None:
    assert run(*GUARDRAIL, stdin=lines("111") + "not a sample\n").exit_code == 0


@pytest.mark.parametrize("bad", ["2", "", "0.5", "yes", "\x00", "0 1"])
def test_a_bad_line_is_named_by_its_number(run: Run, bad: str) -> None:
    result = run(*GUARDRAIL, stdin=f"0\n1\n{bad}\n0\n")
    assert result.exit_code == 1
    assert "line 3: must be 0 or 1" in result.stderr
    assert result.stdout == ""


def test_samples_may_come_from_a_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "samples"
    path.write_text(lines("111"))
    result = run(*GUARDRAIL[:-1], str(path))
    assert result.stdout.splitlines()[0].split() == ["alarm_at", "3"]


@pytest.mark.parametrize(
    ("n", "bad", "limit", "outcome"),
    [
        (300, 2, 0.05, "pass"),
        (20, 2, 0.05, "insufficient"),
        (300, 60, 0.05, "fail"),
        (0, 0, 0.05, "insufficient"),
    ],
)
def test_a_gate_says_pass_fail_or_not_enough(run: Run, n: int, bad: int, limit: float, outcome: str) -> None:
    arguments = ("--limit", str(limit), "--alpha", "0.05", "--n", str(n), "--bad", str(bad), "--json")
    result = run("gates", "try", *arguments)
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert list(facts) == ["outcome", "log_m", "upper"]
    assert facts["outcome"] == outcome
    assert (facts["upper"] < limit) == (outcome == "pass")


@pytest.mark.parametrize(
    "arguments",
    [
        ("gates", "try", "--limit", "0.05", "--n", "3", "--bad", "4"),
        ("gates", "try", "--limit", "0", "--n", "3", "--bad", "1"),
        ("gates", "try", "--limit", "0.05", "--n", "-1", "--bad", "0"),
        ("guardrails", "try", "--limit", "1", "--gap", "0", "-"),
        ("guardrails", "try", "--limit", "0.05", "--gap", "0", "no-such-file"),
        ("guardrails", "try", "--limit", "0.05", "-"),
    ],
    ids=" ".join,
)
def test_an_impossible_question_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
