"""How do those outside hear what happened here, and how do they know that it was we who said it?

Messages follow the Standard Webhooks specification; `text` alone is what Slack-compatible receivers show.
They arrive at least once, in no promised order, and never hold up a decision.
"""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import httpx
import structlog
from sqlalchemy import RowMapping

from app.domain.clock import rfc3339, rfc3339_or_none, to_us
from app.domain.role import Principal
from app.errors import InvalidInput, NotFound
from app.observability import DELIVERIES, Event
from app.services.notices import Notices
from app.services.plane import Plane
from app.services.transitions import AUTOMATION
from app.store import deliveries
from app.store.deliveries import Claimed, Kind, Webhook
from app.store.ledger import Ledger
from app.store.reviews import Backlog
from app.store.rollouts import read_plane, record_transition
from app.store.transaction import Transaction

log = structlog.get_logger()

RETRY_AFTER_S = (5, 30, 120, 600, 3_600, 21_600, 86_400)  # then it has failed
DEADLINE_S = 10.0  # of one attempt, all in all
CHOSEN_FROM = tuple(kind for kind in Kind if kind is not Kind.TEST)

_MAX_URL = 2_048
_MAX_PORT = 65_535
_MAX_ERROR = 200


class Webhooks:
    """Whoever is told, and the sending. `deliver` is for the leader."""

    def __init__(
        self,
        plane: Plane,
        ledger: Ledger,
        notices: Notices,
        *,
        now: Callable[[], datetime],
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._plane, self._ledger, self._notices, self._now = plane, ledger, notices, now
        self._deadline_s = deadline_s
        self._client: httpx.AsyncClient | None = None

    async def add(self, *, url: str, kinds: Collection[str], by: Principal) -> dict[str, Any]:
        """A new one; its secret and its whole address are in the answer and nowhere else. Raises `InvalidInput`."""
        errors = [
            ("kinds", f"{kind!r} is none of {', '.join(CHOSEN_FROM)}")
            for kind in kinds
            if kind not in CHOSEN_FROM
        ]
        if not _is_address(url):
            said = f"must be an http or https address of at most {_MAX_URL} characters, its port at most {_MAX_PORT}"
            errors.append(("url", said))
        if errors:
            raise InvalidInput(errors)
        now_us, wanted = to_us(self._now()), tuple(sorted(set(kinds)))

        def work(tx: Transaction) -> tuple[Webhook, dict[str, Any]]:
            made = deliveries.create_webhook(tx, url=url, kinds=wanted, by=by.key_id, now_us=now_us)
            return made, _recorded(tx, made, "added", actor=by.key_id, now_us=now_us)

        webhook, transition = await self._ledger.run(work)
        self._notices.moved(transition)
        return {**_webhook_document(webhook), "url": url, "secret": webhook.secret}

    def all(self) -> list[dict[str, Any]]:
        """Those that are told, without what is secret of them."""
        with self._plane.database.read() as connection:
            return [_webhook_document(webhook) for webhook in deliveries.live_webhooks(connection)]

    async def remove(self, webhook_id: str, *, by: Principal) -> dict[str, Any]:
        now_us = to_us(self._now())
        transition = await self._ledger.run(
            lambda tx: _end(tx, webhook_id, "removed", actor=by.key_id, now_us=now_us)
        )
        self._notices.moved(transition)
        return {"id": webhook_id, "ended_at": rfc3339(now_us)}

    async def test(self, webhook_id: str) -> dict[str, Any]:
        """A message that says no more than that it is a test; what came of it is in the log."""
        now_us = to_us(self._now())
        body = {"sentence": "a test message of Phasegate: nothing happened"}

        def work(tx: Transaction) -> RowMapping:
            webhook = deliveries.live_webhook(tx.connection, webhook_id)
            return deliveries.enqueue_for(tx, webhook.id, kind=Kind.TEST, body=body, now_us=now_us)

        return _delivery_document(await self._ledger.run(work))

    def log(self, *, status: str | None, limit: int) -> list[dict[str, Any]]:
        with self._plane.database.read() as connection:
            rows = deliveries.list_deliveries(connection, status=status, limit=limit)
        return [_delivery_document(row) for row in rows]

    async def tell_backlog(self, late: Mapping[str, Backlog]) -> None:
        """Remind of the reviews that wait too long, by rollout; of none, nothing is said."""
        if not late:
            return
        each = ", ".join(f"{found.late} of {found.open} in {rollout}" for rollout, found in late.items())
        rollouts = {
            rollout: {"open": found.open, "late": found.late, "oldest_at": rfc3339(found.oldest_us)}
            for rollout, found in late.items()
        }
        body = {"sentence": f"reviews wait too long: {each}", "rollouts": rollouts}
        now_us = to_us(self._now())
        await self._ledger.run(
            lambda tx: deliveries.enqueue(tx, kind=Kind.REVIEW_BACKLOG, body=body, now_us=now_us)
        )

    async def deliver(self) -> None:
        """Send what is due, all of it at once, and write down what came of it; writes nothing where nothing is."""
        now_us = to_us(self._now())
        if not await asyncio.to_thread(self._is_any_due, now_us):
            return
        claimed = await self._ledger.run(lambda tx: deliveries.claim_due(tx, now_us=now_us))
        if claimed and self._client is None:
            self._client = await asyncio.to_thread(httpx.AsyncClient)  # certificates take long to read
        await asyncio.gather(*(self._send(each) for each in claimed))

    async def forget(self, *, before_us: int) -> None:
        await self._ledger.run(lambda tx: deliveries.forget_settled(tx, before_us=before_us))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _is_any_due(self, now_us: int) -> bool:
        with self._plane.database.read() as connection:
            return deliveries.is_any_due(connection, now_us=now_us)

    async def _send(self, claimed: Claimed) -> None:
        status, error = await self._attempt(claimed)
        now_us = to_us(self._now())
        said = {"response": status, "error": error}
        if error is None:
            outcome, said = "delivered", {**said, "status": "delivered", "settled_us": now_us}
        elif status == httpx.codes.GONE or claimed.attempts > len(RETRY_AFTER_S):
            outcome, said = "failed", {**said, "status": "failed", "settled_us": now_us}
        else:
            wait_us = RETRY_AFTER_S[claimed.attempts - 1] * 1_000_000
            outcome, said = "retried", {**said, "due_us": now_us + wait_us}
        await self._ledger.run(lambda tx: deliveries.settle(tx, claimed, **said))
        DELIVERIES.labels(outcome).inc()
        if outcome == "failed":
            log.warning(Event.DELIVERY_FAILED, id=claimed.id, webhook=claimed.webhook_id, error=error)
        if status == httpx.codes.GONE:
            await self._gone(claimed.webhook_id, now_us)

    async def _attempt(self, claimed: Claimed) -> tuple[int | None, str | None]:
        """The answer's status and what is wrong with it; of the answer's body nothing is read."""
        assert self._client is not None
        headers = signed(claimed, at_s=int(self._now().timestamp()))
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                self._client.stream("POST", claimed.url, content=claimed.body, headers=headers) as response,
            ):
                status = response.status_code
                return status, None if response.is_success else f"answered {status}"
        except TimeoutError:
            return None, f"no answer within {self._deadline_s:g} s"
        except httpx.HTTPError as error:
            return None, f"{type(error).__name__}: {error}"[:_MAX_ERROR]
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is written down and holds up no other
            return None, type(error).__name__  # what it says may hold the address, and that a secret

    async def _gone(self, webhook_id: str, now_us: int) -> None:
        """410 is the receiver's word that it wants no more."""
        with suppress(NotFound):  # another delivery's answer said so first
            self._notices.moved(
                await self._ledger.run(
                    lambda tx: _end(tx, webhook_id, "it answered 410", actor=AUTOMATION, now_us=now_us)
                )
            )


def signed(claimed: Claimed, *, at_s: int) -> dict[str, str]:
    """The headers of one attempt: HMAC-SHA256 over `id.timestamp.body` (Standard Webhooks 1.0.0)."""
    key = base64.b64decode(claimed.secret.removeprefix("whsec_"))
    mac = hmac.new(key, f"{claimed.id}.{at_s}.{claimed.body}".encode(), hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "user-agent": "phasegate",
        "webhook-id": claimed.id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def _is_address(url: str) -> bool:
    try:
        parsed = httpx.URL(url)
        has_host = bool(parsed.host)
    except (httpx.InvalidURL, UnicodeError):  # a host that IDNA does not know
        return False
    fits = len(url) <= _MAX_URL and (parsed.port or 0) <= _MAX_PORT
    return parsed.scheme in ("http", "https") and has_host and fits


def _shown(webhook: Webhook) -> str:
    """The path, the query and a password before the host may be secrets: where a message goes is enough."""
    url = httpx.URL(webhook.url)
    return f"{url.scheme}://{url.netloc.decode()}"


def _end(tx: Transaction, webhook_id: str, why: str, *, actor: str, now_us: int) -> dict[str, Any]:
    ended = deliveries.end_webhook(tx, webhook_id, now_us=now_us)
    return _recorded(tx, ended, why, actor=actor, now_us=now_us)


def _recorded(tx: Transaction, webhook: Webhook, why: str, *, actor: str, now_us: int) -> dict[str, Any]:
    """Who hears of the plane is a part of its history."""
    told = {"webhook": _shown(webhook)}
    nobody = dict.fromkeys(told)
    is_new = why == "added"
    return record_transition(
        tx,
        rollout="*",
        kind="webhook",
        before=nobody if is_new else told,
        after=told if is_new else nobody,
        actor=actor,
        automatic=actor == AUTOMATION,
        reason=f"{why}: {webhook.id}",
        evidence=None,
        revision=read_plane(tx.connection).revision,
        now_us=now_us,
    )


def _webhook_document(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "url": _shown(webhook),
        "kinds": list(webhook.kinds or CHOSEN_FROM),
        "created_at": rfc3339(webhook.created_us),
        "created_by": webhook.created_by,
    }


def _delivery_document(row: RowMapping) -> dict[str, Any]:
    kept = ("id", "webhook_id", "kind", "status", "attempts", "response", "error")
    is_waiting = row["status"] == "waiting"
    return {
        **{name: row[name] for name in kept},
        "created_at": rfc3339(row["created_us"]),
        "due_at": rfc3339(row["due_us"]) if is_waiting else None,
        "settled_at": rfc3339_or_none(row["settled_us"]),
    }
