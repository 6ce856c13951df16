"""Is every log line one JSON object, and every metric label a closed set?"""

import json
import logging
import re
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

import pytest
import structlog
from prometheus_client import Counter, Gauge, Histogram

from app import observability
from app.observability import (
    REGISTRY,
    REQUEST_ID,
    Event,
    begin_request,
    configure_logging,
    exposition,
    stop_logging,
)
from app.settings import load_settings


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "logs" / "phasegate.log"
    configure_logging(load_settings({"PHASEGATE_LOG_FILE": str(path)}))
    former = REQUEST_ID.set(None)
    yield path
    REQUEST_ID.reset(former)
    stop_logging()
    structlog.reset_defaults()


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_log_line_is_one_json_object_with_the_request_id(log_file: Path) -> None:
    begin_request("abc-1")
    structlog.get_logger().info(Event.DECISION, rollout="read", text="two\nlines", path=log_file)
    [line] = lines(log_file)
    assert (line["event"], line["level"], line["request_id"]) == ("decision", "info", "abc-1")
    assert line["text"] == "two\nlines"
    assert line["path"] == str(log_file)


def test_a_library_logs_in_the_same_form(log_file: Path) -> None:
    try:
        raise ValueError("broken")  # noqa: TRY301
    except ValueError:
        logging.getLogger("uvicorn.error").exception("it %s", "failed")
    [line] = lines(log_file)
    assert (line["event"], line["logger"], line["message"]) == ("library", "uvicorn.error", "it failed")
    assert "ValueError: broken" in str(line["exception"])


def test_lines_below_the_level_are_dropped(log_file: Path) -> None:
    structlog.get_logger().debug(Event.DECISION)
    logging.getLogger("httpx").info("a request")
    assert not log_file.exists() or lines(log_file) == []


def test_the_log_file_rotates(log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [handler] = [each for each in logging.getLogger().handlers if isinstance(each, RotatingFileHandler)]
    monkeypatch.setattr(handler, "maxBytes", 200)
    for _ in range(3):
        structlog.get_logger().info(Event.DECISION, padding="x" * 150)
    assert log_file.with_name("phasegate.log.1").exists()
    assert len(lines(log_file)) == 1


@pytest.mark.parametrize("header", [None, "", "a b", "x" * 129, 'a"\n{"event":"transition"}'])
def test_a_request_id_that_could_forge_a_line_is_replaced(header: str | None, log_file: Path) -> None:
    made = begin_request(header)
    assert made != header
    assert REQUEST_ID.get() == made


def test_no_metric_carries_an_open_label() -> None:
    closed = {"rollout", "phase", "decision", "answered_by", "reason", "outcome", "why", "legacy", "model"}
    closed |= {"match", "kind", "automatic", "guardrail", "job", "method", "route", "status"}
    collectors = set(REGISTRY._names_to_collectors.values())
    assert collectors
    for collector in collectors:
        assert set(getattr(collector, "_labelnames", ())) <= closed


def test_every_metric_bears_our_name() -> None:
    helps = [line for line in exposition().decode().splitlines() if line.startswith("# HELP")]
    assert len(helps) > 20
    assert all(line.startswith("# HELP phasegate_") for line in helps)


def test_no_event_and_no_metric_is_named_in_vain() -> None:
    app = Path(observability.__file__).parent
    used = {
        word
        for path in app.rglob("*.py")
        if path.name != "observability.py"
        for word in re.findall(r"Event\.[A-Z_]+|\b[A-Z][A-Z_]+\b", path.read_text(encoding="utf-8"))
    }
    metrics = {
        name for name, value in vars(observability).items() if isinstance(value, Counter | Gauge | Histogram)
    }
    assert metrics
    assert metrics - used == set()
    assert {f"Event.{event.name}" for event in Event if event is not Event.LIBRARY} - used == set()
