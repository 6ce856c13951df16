"""What does the plane log and count, under which names?"""

import itertools
import logging
import os
import re
import sys
from contextvars import ContextVar
from enum import StrEnum
from functools import partial
from logging.handlers import RotatingFileHandler
from typing import TextIO

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from structlog.typing import EventDict, WrappedLogger

from app.settings import Settings

LOG_FILE_BYTES = 50 * 1024 * 1024
LOG_FILE_COUNT = 5


class Event(StrEnum):
    """Every name that a log line's `event` may have."""

    DECISION = "decision"
    TRANSITION = "transition"
    ROLLBACK = "rollback"
    OBSERVATION_LOST = "observation_lost"
    REQUEST_FAILED = "request_failed"
    SERVER_STARTED = "server_started"
    SERVER_STOPPED = "server_stopped"
    POLICY_APPLIED = "policy_applied"
    POLICY_WAITS = "policy_waits"
    VERSION_VALIDATED = "version_validated"
    VERSION_REGISTERED = "version_registered"
    VERSION_NOT_WRITTEN = "version_not_written"
    KEY_CREATED = "key_created"
    KEY_REVOKED = "key_revoked"
    SIGNED_IN = "signed_in"
    SIGNED_OUT = "signed_out"
    SIGN_IN_FAILED = "sign_in_failed"
    SIGN_IN_LOCKED = "sign_in_locked"
    USER_CREATED = "user_created"
    USER_CHANGED = "user_changed"
    WORKER_READY = "worker_ready"
    WORKER_LOST = "worker_lost"
    CIRCUIT_OPENED = "circuit_opened"
    CIRCUIT_CLOSED = "circuit_closed"
    STORE_LOST = "store_lost"
    STORE_BACK = "store_back"
    JOURNAL_FAILED = "journal_failed"
    JOURNAL_TORN = "journal_torn"
    REPLAY_FAILED = "replay_failed"
    REPLAY_REJECTED = "replay_rejected"
    LEASE_TAKEN = "lease_taken"
    LEASE_LOST = "lease_lost"
    JOB_FAILED = "job_failed"
    RETENTION_RAN = "retention_ran"
    REPORT_KEPT = "report_kept"
    CLOCK_JUMPED = "clock_jumped"
    DELIVERY_FAILED = "delivery_failed"
    LIBRARY = "library"  # a line that another library logged; its words are in `message`


REGISTRY = CollectorRegistry()
_counter, _gauge = partial(Counter, registry=REGISTRY), partial(Gauge, registry=REGISTRY)
_histogram = partial(Histogram, registry=REGISTRY)
_seconds = partial(
    _histogram, buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
)

# Labels are closed sets: rollouts and versions come from policy files, `route` is a path template,
# the rest are enumerations. Never an actor, an id or free text.
DECISIONS = _counter(
    "phasegate_decisions", "Decisions given", ["rollout", "phase", "decision", "answered_by"]
)
FALLBACKS = _counter(
    "phasegate_fallbacks",
    "Answers by the legacy engine where the model should have answered",
    ["rollout", "reason"],
)
DECISION_SECONDS = _seconds("phasegate_decision_seconds", "From situation to committed decision", ["phase"])
ADVISORIES = _counter("phasegate_advisories", "Answers of the model", ["rollout", "outcome"])
ADVISORY_SECONDS = _seconds("phasegate_advisory_seconds", "Time that the model took for an answer")
CACHED = _counter("phasegate_cached_answers", "Answers that a version gave from memory", ["rollout"])
NOT_OBSERVED = _counter(
    "phasegate_not_observed",
    "Situations that are no evidence: the model was not asked, or they or their actor were heard before",
    ["rollout", "why"],  # unsampled | shed | model_down, or a claim: repeated | capped | unclaimed
)
COMPARISONS = _counter(
    "phasegate_comparisons", "Pairs of legacy and model answers", ["rollout", "legacy", "model"]
)
VERDICTS = _counter("phasegate_verdicts", "Verdicts of people", ["rollout", "match"])
TRANSITIONS = _counter(
    "phasegate_transitions",
    "Changes of phase, exposure, version, hold or kill switch",
    ["rollout", "kind", "automatic"],
)
PHASE = _gauge("phasegate_phase", "0 shadow, 1 advisory, 2 enforced", ["rollout"])
EXPOSURE = _gauge("phasegate_exposure", "Share of actors, 0..1", ["rollout"])
GUARDRAIL_E_VALUE = _gauge("phasegate_guardrail_e_value", "Evidence of harm", ["rollout", "guardrail"])
KILL_SWITCH = _gauge("phasegate_kill_switch", "1 while engaged")
LEADER = _gauge("phasegate_leader", "1 while this instance runs the jobs")
SNAPSHOT_AGE_SECONDS = _gauge("phasegate_snapshot_age_seconds", "Since the start of the last good poll")
COMMIT_SECONDS = _seconds("phasegate_commit_seconds", "One commit of the ledger")
COMMIT_ROWS = _histogram(
    "phasegate_commit_rows", "Records in one commit", buckets=[2**power for power in range(11)]
)
JOURNALING = _gauge("phasegate_journaling", "1 while records go to the journal")
MODEL_UP = _gauge("phasegate_model_up", "1 while the worker answers")
MODEL_QUEUE = _gauge("phasegate_model_queue", "Situations that wait for the model")
MODEL_RESTARTS = _gauge("phasegate_model_restarts", "Starts of a worker after its loss")
DELIVERIES = _counter(
    "phasegate_deliveries",
    "Attempts to tell a webhook",
    ["outcome"],  # delivered | retried | failed
)
JOBS = _counter("phasegate_jobs", "Runs of scheduled jobs", ["job", "outcome"])
REQUESTS = _counter("phasegate_http_requests", "HTTP requests", ["method", "route", "status"])
REQUEST_SECONDS = _seconds("phasegate_http_seconds", "HTTP requests", ["route"])


def exposition() -> bytes:
    """All metrics in the Prometheus text format."""
    return generate_latest(REGISTRY)


REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
_PROCESS = os.urandom(12).hex()
_numbers = itertools.count()
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def begin_request(header: str | None) -> str:
    """Take over the caller's `X-Request-ID`, or make one where it is absent or could forge a log line."""
    request_id = (
        header if header is not None and _ACCEPTABLE.fullmatch(header) else f"{_PROCESS}{next(_numbers):08x}"
    )
    REQUEST_ID.set(request_id)
    return request_id


def configure_logging(settings: Settings) -> None:
    """Send every log line, ours and the libraries', as JSON to the log file or stderr.

    May be called again: the last call holds.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    handler = _handler(settings)
    handler.setFormatter(_LibraryFormatter())
    root = logging.getLogger()
    stop_logging()
    root.addHandler(handler)
    # Libraries below warning tell of their own doings, one line a request.
    root.setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Sink(handler),
        cache_logger_on_first_use=False,
    )


def stop_logging() -> None:
    """Close our handler; other people's stay."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, _LibraryFormatter):
            root.removeHandler(handler)
            handler.close()


class _Sink:
    """Writes finished lines to a standard handler, which locks and rotates."""

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler

    def msg(self, line: str) -> None:
        self._handler.handle(logging.LogRecord("phasegate", logging.INFO, "", 0, line, None, None))

    debug = info = warning = error = critical = exception = log = msg


class _LibraryFormatter(logging.Formatter):
    """Leaves our lines as they are and puts another library's into the same JSON form."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == "phasegate":
            return str(record.msg)
        event: EventDict = {"event": Event.LIBRARY, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        method = record.levelname.lower()
        for processor in _PROCESSORS:
            event = processor(None, method, event)  # type: ignore[assignment]
        return str(event)


class _LogFile(RotatingFileHandler):
    """Rotates by size without asking the file system at every line, which doubles a line's cost."""

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 -- the library's name
        return self.stream is not None and self.stream.tell() + len(self.format(record)) > self.maxBytes


def _handler(settings: Settings) -> logging.Handler:
    if settings.log_file is None:
        stream: logging.StreamHandler[TextIO] = logging.StreamHandler(sys.stderr)
        return stream
    settings.log_file.parent.mkdir(parents=True, exist_ok=True)
    return _LogFile(settings.log_file, maxBytes=LOG_FILE_BYTES, backupCount=LOG_FILE_COUNT, encoding="utf-8")


def _with_request_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event.setdefault("request_id", request_id)
    return event


def _to_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


_PROCESSORS: list[structlog.typing.Processor] = [
    _with_request_id,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _to_json,
]
