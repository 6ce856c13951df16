"""What do the store's tests write?"""

import time
from typing import Any

from sqlalchemy import Executable

from app.store.database import Database
from app.store.entry import Entry, Guard
from app.store.ids import new_id
from app.store.tables import (
    advisories,
    candidate_advisories,
    decisions,
    reasonings,
    rollouts,
    situations,
    transitions,
    validations,
    verdicts,
    versions,
)
from app.store.transaction import CounterKey, seal, transaction

NOW_US = 1_800_000_000_000_000
MINUTE = NOW_US // 60_000_000
KEY = CounterKey("write", "v1", 1, MINUTE, "decisions", "allow")


def decision(decision_id: str | None = None, *, actor: str = "alice", **changes: Any) -> Entry:
    """A decision with its situation, counted once."""
    decision_id = decision_id or new_id()
    body = f'{{"action_type":"write","actor_id":"{actor}","details":"ünïcode"}}'
    salt, commitment = seal(body)
    row = {
        "id": decision_id,
        "created_us": time.time_ns() // 1_000,
        "rollout": "write",
        "epoch": 1,
        "revision": 1,
        "version": "v1",
        "phase": "shadow",
        "exposed": True,
        "action_type": "write",
        "key_id": "k1",
        "decision": "allow",
        "answered_by": "legacy",
        "combine": "stricter",
        "legacy_latency_ms": 3,  # a whole number in a float column
        "latency_ms": 0.1 + 0.2,
        "situation_commitment": commitment,
        **changes,
    }
    situation = {"decision_id": decision_id, "actor_id": actor, "salt": salt, "body": body}
    return Entry(((decisions, row), (situations, situation)), ((KEY, 1),))


def guarded(*, revision: int = 1) -> Entry:
    """A model's answer that stands only at this revision of `write`, and what stands in for it."""
    return decision(answered_by="model")._replace(guard=Guard("write", revision), otherwise=decision())


def advisory(decision_id: str) -> Entry:
    row = {
        "decision_id": decision_id,
        "created_us": NOW_US,
        "rollout": "write",
        "epoch": 1,
        "version": "v1",
        "outcome": "ok",
        "latency_ms": 12.5,
        "started": True,
        "cached": False,
    }
    return Entry(((advisories, row),))


def candidate_advisory(decision_id: str) -> Entry:
    [(_, row)] = advisory(decision_id).rows
    return Entry(((candidate_advisories, {**row, "version": "v2"}),))


def version(name: str = "v1") -> Entry:
    row = {
        "id": new_id(),
        "version": name,
        "created_us": NOW_US,
        "created_by": "automation",
        "document": "{}",
        "sha256": "0" * 64,
    }
    return Entry(((versions, row),))


def reasoning(decision_id: str) -> Entry:
    body = '{"text":"because"}'
    row = {"decision_id": decision_id, "created_us": NOW_US, "salt": seal(body)[0], "body": body}
    return Entry(((reasonings, row),))


def verdict() -> Entry:
    row = {
        "id": new_id(),
        "review_id": "r1",
        "decision_id": "d1",
        "created_us": NOW_US,
        "rollout": "write",
        "epoch": 1,
        "version": "v1",
        "judge": "k2",
        "source": "review",
    }
    return Entry(((verdicts, row),))


def transition() -> Entry:
    row = {
        "id": new_id(),
        "created_us": NOW_US,
        "rollout": "write",
        "kind": "promote",
        "from_state": "{}",
        "to_state": "{}",
        "actor": "k3",
        "automatic": False,
        "reason": "ready",
        "revision": 2,
    }
    return Entry(((transitions, row),))


def validation() -> Entry:
    row = {
        "id": new_id(),
        "created_us": NOW_US,
        "version": "v1",
        "suite_sha256": "0" * 64,
        "n": 60,
        "pass_rate": 0.95,
        "wrong_allows": 0,
        "report": "{}",
        "by_key": "k3",
    }
    return Entry(((validations, row),))


def write(database: Database, *entries: Entry, instance: str = "test", now_us: int = NOW_US) -> None:
    """Commit the entries' rows and counts as one batch."""
    with transaction(database, instance, now_us=now_us) as tx:
        for entry in entries:
            for table, values in entry.rows:
                tx.insert(table, values)
            for key, n in entry.counts:
                tx.count(key, n)


def add_rollout(database: Database, name: str = "write", *, epoch: int = 1) -> None:
    row = {
        "name": name,
        "phase": "enforced",
        "exposure": 1.0,
        "revision": 1,
        "epoch": epoch,
        "epoch_started_us": NOW_US,
        "version": "v1",
        "held": False,
        "rolled_back": False,
        "settings_hash": "",
    }
    with transaction(database, "setup", now_us=NOW_US) as tx:
        tx.insert(rollouts, row)


def execute(database: Database, *statements: Executable) -> None:
    """One transaction past the ledger."""
    with database.write() as connection:
        for statement in statements:
            connection.execute(statement)


def id_of(entry: Entry) -> str:
    """What the entry's first row is called."""
    values = entry.rows[0][1]
    return str(values.get("id") or values["decision_id"])


def ids(database: Database) -> list[str]:
    """Every decision that is there."""
    with database.read() as connection:
        return list(connection.execute(decisions.select().with_only_columns(decisions.c.id)).scalars())
