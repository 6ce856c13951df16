"""Which versions are registered, and what is each of them, for ever?"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exists, func, or_, select

from app.store import tables as t
from app.store.ids import new_id
from app.store.transaction import Transaction

_KINDS = ("version", "candidate", "activate", "revert", "withdraw")


@dataclass(frozen=True, slots=True)
class Registered:
    """A version as it stands in the registry. `document` is its declaration, JSON-ready."""

    version: str
    document: dict[str, Any]
    sha256: str
    created_us: int
    created_by: str


def registered(connection: Connection) -> dict[str, Registered]:
    """Every version by its id, the oldest first."""
    newest = select(func.max(t.versions.c.id)).group_by(t.versions.c.version)
    query = select(t.versions).where(t.versions.c.id.in_(newest)).order_by(t.versions.c.id)
    return {
        row["version"]: Registered(
            row["version"],
            json.loads(row["document"]),
            row["sha256"],
            row["created_us"],
            row["created_by"],
        )
        for row in connection.execute(query).mappings()
    }


def register(tx: Transaction, document: Mapping[str, Any], *, by: str, now_us: int) -> Registered:
    """Add a version, or take the place of one that was never used; whether that may be is asked before."""
    body = json.dumps(document, sort_keys=True)
    sha256 = hashlib.sha256(body.encode()).hexdigest()
    row = {
        "id": new_id(),
        "version": document["id"],
        "created_us": now_us,
        "created_by": by,
        "document": body,
        "sha256": sha256,
    }
    tx.insert(t.versions, row)
    return Registered(str(document["id"]), dict(document), sha256, now_us, by)


def is_used(connection: Connection, version: str) -> bool:
    """Whether a rollout, a validation or anything that was ever counted names the version: then it stands."""
    r, c, v = t.rollouts.c, t.evidence_totals.c, t.validations.c
    in_rollout = exists().where(or_(r.version == version, r.candidate == version, r.previous == version))
    counted, validated = exists().where(c.version == version), exists().where(v.version == version)
    return bool(connection.scalar(select(or_(in_rollout, counted, validated))))


def once_in_use(connection: Connection) -> dict[str, set[str]]:
    """Per rollout, every version that its transitions name as active or candidate."""
    found: dict[str, set[str]] = {}
    query = select(t.transitions.c.rollout, t.transitions.c.from_state, t.transitions.c.to_state)
    for name, *states in connection.execute(query.where(t.transitions.c.kind.in_(_KINDS))):
        for state in map(json.loads, states):
            found.setdefault(name, set()).update(
                version for version in (state["version"], state.get("candidate")) if version
            )
    return found
