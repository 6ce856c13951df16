"""Which policy is in force, and which waits for a second person?"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from app.store import tables as t
from app.store.ids import new_id
from app.store.rollouts import touch_plane
from app.store.transaction import Transaction


def fingerprint(documents: Mapping[str, str]) -> str:
    """SHA-256 over the file texts by name."""
    return hashlib.sha256(json.dumps(dict(documents), sort_keys=True).encode()).hexdigest()


def applied(connection: Connection, *, unless: str | None = None) -> tuple[str, dict[str, str] | None]:
    """Hash and texts of the policy in force; texts are None where the hash is `unless`.

    The hash is empty before a first policy was applied.
    """
    p = t.policy_documents
    sha256 = connection.execute(select(p.c.sha256).where(p.c.status == "applied")).scalar_one_or_none()
    if sha256 is None or sha256 == unless:
        return sha256 or "", None
    body = connection.execute(select(p.c.body).where(p.c.status == "applied")).scalar_one()
    return sha256, json.loads(body)


def proposed(connection: Connection) -> RowMapping | None:
    """The proposal that waits, if any."""
    p = t.policy_documents
    return connection.execute(select(p).where(p.c.status == "proposed")).mappings().one_or_none()


def propose(tx: Transaction, documents: Mapping[str, str], *, author: str, now_us: int) -> str:
    """Let a policy wait for a second person; it takes the place of an earlier proposal."""
    return _insert(tx, documents, status="proposed", author=author, now_us=now_us)


def apply(tx: Transaction, documents: Mapping[str, str], *, author: str, approver: str, now_us: int) -> str:
    """Put a policy in force; the one before is kept as superseded."""
    tx.connection.execute(
        update(t.policy_documents).where(t.policy_documents.c.status == "applied").values(status="superseded")
    )
    sha256 = _insert(
        tx, documents, status="applied", author=author, now_us=now_us, applied_by=approver, applied_us=now_us
    )
    touch_plane(tx)
    return sha256


def _insert(
    tx: Transaction, documents: Mapping[str, str], *, status: str, author: str, now_us: int, **more: Any
) -> str:
    # One proposal at a time, and none is left over once a policy was applied.
    tx.connection.execute(
        update(t.policy_documents)
        .where(t.policy_documents.c.status == "proposed")
        .values(status="superseded")
    )
    sha256 = fingerprint(documents)
    row = {
        "id": new_id(),
        "sha256": sha256,
        "body": json.dumps(dict(documents)),
        "status": status,
        "proposed_by": author,
        "proposed_us": now_us,
        **more,
    }
    tx.insert(t.policy_documents, row)
    return sha256
