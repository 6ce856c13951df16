"""Who outside is told what happened here, and which notices still wait to be sent?

The table is an outbox: a notice is a row in the transaction of what it tells of, so neither is there without
the other. What is sent is the row's body to the byte, at every attempt.
"""

import json
import secrets
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, func, select, update

from app.domain.clock import rfc3339
from app.errors import NotFound
from app.store.ids import new_id
from app.store.tables import deliveries, webhooks
from app.store.transaction import Transaction

CLAIM_US = 60_000_000  # what a sender that died held back is due again after this
_AT_ONCE = 5  # of one webhook: one that does not answer holds up no other


class Kind(StrEnum):
    """What a webhook may be told of."""

    TRANSITION = "transition"
    GUARDRAIL = "guardrail"
    REPORT = "report"
    REVIEW_BACKLOG = "review_backlog"
    TEST = "test"  # goes to the one that is tested, whatever it asked for


@dataclass(frozen=True, slots=True)
class Webhook:
    """`kinds` it wants, all where there are none. The secret is `whsec_` and 32 bytes in base64."""

    id: str
    created_us: int
    created_by: str
    url: str
    secret: str
    kinds: tuple[str, ...]
    ended_us: int | None = None

    def wants(self, kind: str) -> bool:
        return not self.kinds or kind in self.kinds


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is ours to send; `attempts` counts this one."""

    id: str
    webhook_id: str
    url: str
    secret: str
    body: str
    attempts: int


def enqueue(tx: Transaction, *, kind: str, body: Mapping[str, Any], now_us: int) -> None:
    """Tell every webhook that wants this kind, as soon as this transaction is committed.

    `body` becomes `data`; its `sentence`, after its `rollout` if it has one that the sentence does not name, is what
    people are shown. No
    situation, actor or reviewer's note belongs in it: it leaves the plane.
    """
    for webhook in live_webhooks(tx.connection):
        if webhook.wants(Kind(kind)):
            enqueue_for(tx, webhook.id, kind=kind, body=body, now_us=now_us)


def enqueue_for(
    tx: Transaction, webhook_id: str, *, kind: str, body: Mapping[str, Any], now_us: int
) -> RowMapping:
    """Tell one webhook; returns the row."""
    delivery_id = new_id()
    document = {
        "text": _text(body),
        "type": f"phasegate.{kind}",
        "id": delivery_id,
        "timestamp": rfc3339(now_us),
        "data": body,
    }
    row = {
        "id": delivery_id,
        "webhook_id": webhook_id,
        "kind": kind,
        "body": json.dumps(document, ensure_ascii=False, separators=(",", ":")),
        "created_us": now_us,
        "status": "waiting",
        "attempts": 0,
        "due_us": now_us,
    }
    tx.insert(deliveries, row)
    return tx.connection.execute(select(deliveries).where(deliveries.c.id == delivery_id)).mappings().one()


def create_webhook(tx: Transaction, *, url: str, kinds: tuple[str, ...], by: str, now_us: int) -> Webhook:
    secret = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
    webhook = Webhook(new_id(), now_us, by, url, secret, kinds)
    row = {"created_us": now_us, "created_by": by, "url": url, "secret": secret, "kinds": " ".join(kinds)}
    tx.insert(webhooks, {"id": webhook.id, **row})
    return webhook


def end_webhook(tx: Transaction, webhook_id: str, *, now_us: int) -> Webhook:
    """Send it nothing more; what waits for it has failed. Raises `NotFound` where it has ended already."""
    webhook = live_webhook(tx.connection, webhook_id)
    tx.connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(ended_us=now_us))
    tx.connection.execute(
        update(deliveries)
        .where(deliveries.c.webhook_id == webhook_id, deliveries.c.status == "waiting")
        .values(status="failed", error="the webhook has ended", settled_us=now_us)
    )
    return webhook


def live_webhooks(connection: Connection) -> list[Webhook]:
    found = connection.execute(select(webhooks).where(webhooks.c.ended_us.is_(None)).order_by(webhooks.c.id))
    return [Webhook(**{**row, "kinds": tuple(row["kinds"].split())}) for row in found.mappings()]


def live_webhook(connection: Connection, webhook_id: str) -> Webhook:
    for webhook in live_webhooks(connection):
        if webhook.id == webhook_id:
            return webhook
    raise NotFound("webhook", webhook_id)


def is_any_due(connection: Connection, *, now_us: int) -> bool:
    return connection.execute(select(deliveries.c.id).where(*_due(now_us)).limit(1)).first() is not None


def claim_due(tx: Transaction, *, now_us: int) -> list[Claimed]:
    """Take what is due, a few of each webhook, oldest first: until it is settled or the claim runs out,
    no other sender has it, also one that still thinks that it leads.
    """
    place = func.row_number().over(partition_by=deliveries.c.webhook_id, order_by=deliveries.c.due_us)
    ranked = select(deliveries, place.label("place")).where(*_due(now_us)).subquery()
    rows = tx.connection.execute(select(ranked).where(ranked.c.place <= _AT_ONCE)).mappings().all()
    known = {webhook.id: webhook for webhook in live_webhooks(tx.connection)}
    return [
        Claimed(
            row["id"], to.id, url=to.url, secret=to.secret, body=row["body"], attempts=row["attempts"] + 1
        )
        for row in rows
        if (to := known.get(row["webhook_id"])) is not None
        and _changes(tx, row["id"], row["attempts"], attempts=row["attempts"] + 1, due_us=now_us + CLAIM_US)
    ]


def settle(tx: Transaction, claimed: Claimed, **columns: Any) -> None:
    """Write down what came of it, unless somebody else has claimed it since."""
    _changes(tx, claimed.id, claimed.attempts, **columns)


def list_deliveries(connection: Connection, *, status: str | None, limit: int) -> list[RowMapping]:
    """Newest first."""
    query = select(deliveries).order_by(deliveries.c.id.desc()).limit(limit)
    if status is not None:
        query = query.where(deliveries.c.status == status)
    return list(connection.execute(query).mappings())


def forget_settled(tx: Transaction, *, before_us: int) -> int:
    """Delete from the log what was settled before that; returns how many."""
    return tx.connection.execute(delete(deliveries).where(deliveries.c.settled_us < before_us)).rowcount


def _due(now_us: int) -> tuple[ColumnElement[bool], ...]:
    return deliveries.c.status == "waiting", deliveries.c.due_us <= now_us


def _changes(tx: Transaction, delivery_id: str, was: int, **columns: Any) -> bool:
    """Compare-and-set on the number of attempts."""
    d = deliveries.c
    same = (d.id == delivery_id, d.attempts == was, d.status == "waiting")
    return tx.connection.execute(update(deliveries).where(*same).values(columns)).rowcount == 1


def _text(body: Mapping[str, Any]) -> str:
    """On one line, and with the three characters escaped by which Slack is told to mention a channel."""
    about = body.get("rollout", "*")
    names_it = about == "*" or "actor_name" in body  # as the sentence of a transition does
    said: str = body["sentence"] if names_it else f"{about}: {body['sentence']}"
    escaped = said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(escaped.split())
