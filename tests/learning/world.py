"""What is taught in the tests: a policy that the rules know, but for what the free text says."""

import json
import random
import string
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from app.domain.advisory import Advisory, Outcome, Probabilities
from app.domain.decision import Decision
from app.domain.situation import Situation, canonical, parse_situation, to_document
from app.engines.model.head import Hidden
from app.engines.model.version import ModelVersion
from app.learning.corrections import Example
from app.learning.lesson import Open
from app.store import tables as t
from app.store.database import Database
from app.store.hashing import seal
from app.store.transaction import Transaction, transaction
from tests.store.samples import NOW_US

WIDTH = 8
ALLOWING = Probabilities(0.8, 0.1, 0.1)
_ALARMS = ("token leaked", "alarm raised", "badge stolen", "session copied")


def situation(number: int, *, alarm: bool, actor: str | None = None, **changes: Any) -> Situation:
    """One of many, each in words of its own; `alarm` is what only the free text says."""
    chance = random.Random(number)
    trust = chance.choice((0.3, 0.6, 0.9))
    words = ["".join(chance.choices(string.ascii_lowercase, k=6)) for _ in range(5)]
    said = " ".join([*words, *([_ALARMS[number % 4]] if alarm else [])])
    raw = {
        "action_type": chance.choice(("read", "write", "deploy")),
        "actor_role": chance.choice(("member", "developer")),
        "actor_id": actor or f"actor-{number}",
        "t3_tensor": {"competence": trust, "reliability": trust, "integrity": trust},
        "resource": f"env:{chance.choice(('test', 'production'))}/{number}",
        "details": said,
        **changes,
    }
    return parse_situation(raw)


def legacy_answer(asked: Situation) -> Decision:
    """The rules know trust alone."""
    trust = asked.trust.lowest
    if trust < 0.5:
        return Decision.DENY
    return Decision.REQUIRE_ATTESTATION if trust < 0.8 else Decision.ALLOW


def is_alarming(asked: Situation) -> bool:
    return any(alarm in str(asked.details) for alarm in _ALARMS)


def example(number: int, *, alarm: bool | None = None, judge: str | None = "bob") -> Example:
    """Its right decision: that of the rules, but deny where there is an alarm."""
    asked = situation(number, alarm=number % 3 == 0 if alarm is None else alarm)
    legacy = legacy_answer(asked)
    right = Decision.DENY if is_alarming(asked) else legacy
    return Example(f"d{number:05}", asked, right, legacy, judge=judge, mode="blind", model=legacy)


def examples(count: int, **options: Any) -> tuple[Example, ...]:
    return tuple(example(number, **options) for number in range(count))


class Pupil:
    """A model whose hidden state knows of the alarm where it `understands`; it answers allow throughout."""

    def __init__(self, *, understands: bool = True) -> None:
        self._understands = understands

    def advise(self, _: Situation, *, legacy: Decision | None = None) -> Advisory:  # noqa: ARG002
        return Advisory("pupil", Outcome.OK, 1.0, decision=Decision.ALLOW, probabilities=ALLOWING)

    def hidden(self, asked: Situation, *, legacy: Decision | None = None) -> Hidden:  # noqa: ARG002
        state = np.random.default_rng(len(canonical(asked)) + hash_of(asked)).normal(size=WIDTH)
        if self._understands:
            state[0] = 3.0 if is_alarming(asked) else -3.0
        return state.astype(np.float32)


def hash_of(asked: Situation) -> int:
    return sum(map(ord, canonical(asked)))


def opening(pupil: Pupil) -> Open:
    @contextmanager
    def opened(version: ModelVersion) -> Iterator[Pupil]:
        yield pupil

    return opened


def as_line(taught: Example) -> str:
    """As a file of generated examples holds it."""
    return json.dumps(
        {
            "id": taught.id,
            "situation": to_document(taught.situation),
            "decision": taught.decision,
            "legacy": taught.legacy,
        }
    )


def write_file(path: Path, taught: tuple[Example, ...]) -> Path:
    path.write_text("\n".join(map(as_line, taught)), encoding="utf-8")
    return path


def add_judge(database: Database, key: str, *, roles: str = "reviewer", actors: tuple[str, ...] = ()) -> None:
    row = {
        "id": key,
        "name": key,
        "secret_sha256": key,
        "roles": roles,
        "actors": json.dumps(actors),
        "created_us": NOW_US,
        "created_by": "admin",
    }
    with transaction(database, "keys", now_us=NOW_US) as tx:
        tx.insert(t.api_keys, row)


def add_verdicts(database: Database, *judged: Example, **changes: Any) -> None:
    """Record decisions with their reviews and verdicts; `changes` are columns of any of these rows."""
    with transaction(database, "plane", now_us=NOW_US) as tx:
        for each in judged:
            _add(tx, each, changes)


def _add(tx: Transaction, each: Example, changes: dict[str, Any]) -> None:
    body = canonical(each.situation)
    salt, commitment = seal(body)
    common = {"created_us": NOW_US, "rollout": "write", "epoch": 1, "version": "v1"}
    decision: dict[str, Any] = {
        "id": each.id,
        "revision": 1,
        "phase": "shadow",
        "exposed": True,
        "action_type": each.situation.action_type,
        "key_id": "service",
        "decision": each.legacy.value,
        "answered_by": "legacy",
        "combine": "stricter",
        "legacy_decision": each.legacy.value,
        "legacy_error": None,
        "latency_ms": 1.0,
        "situation_commitment": commitment,
    }
    review: dict[str, Any] = {
        "id": f"r{each.id}",
        "decision_id": each.id,
        "kind": "drawn",
        "status": "judged",
        "mode": "blind",
        "priority": 10,
        "due_us": NOW_US,
    }
    verdict: dict[str, Any] = {
        "id": f"v{each.id}",
        "review_id": f"r{each.id}",
        "decision_id": each.id,
        "judge": each.judge,
        "source": "review",
        "decision": each.decision.value,
        "category": each.category,
        "notes": each.notes,
        "llm_decision": each.model.value if each.model else None,
    }
    if not changes.get("erased"):
        row = {"decision_id": each.id, "actor_id": each.situation.actor_id, "salt": salt, "body": body}
        tx.insert(t.situations, row)
    for table, row in ((t.decisions, decision), (t.reviews, review), (t.verdicts, verdict)):
        changed = {name: value for name, value in changes.items() if name in row}
        tx.insert(table, {**common, **row, **changed})


def undo(database: Database, undone: Example) -> None:
    """As its judge takes a verdict back."""
    row = {
        "id": f"w{undone.id}",
        "review_id": f"r{undone.id}",
        "decision_id": undone.id,
        "created_us": NOW_US,
        "rollout": "write",
        "epoch": 1,
        "version": "v1",
        "judge": undone.judge,
        "source": "undo",
        "supersedes": f"v{undone.id}",
    }
    with transaction(database, "plane", now_us=NOW_US) as tx:
        tx.insert(t.verdicts, row)


def by(judge: str, *taught: Example) -> tuple[Example, ...]:
    return tuple(replace(each, judge=judge) for each in taught)
