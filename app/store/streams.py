"""What has each guardrail seen so far, and what did it last say?"""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, func, select

from app.domain.assessment import Assessment, to_wire
from app.domain.limits import Action
from app.domain.stream import StreamState
from app.store import tables as t
from app.store.trail import Trail, points_of
from app.store.transaction import Transaction

s = t.guardrail_streams


def to_json(state: StreamState) -> str:
    return msgspec.json.encode(state).decode()


def from_json(text: str) -> StreamState:
    """Raises `msgspec.DecodeError`."""
    return msgspec.json.decode(text, type=StreamState)


def load_streams(connection: Connection) -> dict[tuple[str, str], tuple[StreamState, Trail]]:
    """Every stream and its trail by (rollout, guardrail)."""
    rows = connection.execute(select(s.c.rollout, s.c.guardrail, s.c.state, s.c.trail))
    return {
        (rollout, guardrail): (from_json(state), Trail.of(trail)) for rollout, guardrail, state, trail in rows
    }


def last_saved_us(connection: Connection) -> int | None:
    """When a stream was last written, whoever did it."""
    latest: int | None = connection.execute(select(func.max(s.c.updated_us))).scalar_one()
    return latest


def stream_row(
    rollout: str, state: StreamState, assessment: Assessment, trail: Trail, *, now_us: int
) -> dict[str, Any]:
    """What `save_streams` writes of one guardrail; the trail takes in what was assessed."""
    if assessment.e_value is not None:
        trail.add(now_us // 1_000_000, assessment.e_value, assessment.rate)
    return {
        "rollout": rollout,
        "guardrail": str(assessment.name),
        "epoch": state.epoch,
        "state": to_json(state),
        "updated_us": now_us,
        "assessment": msgspec.json.encode(to_wire(assessment)).decode(),
        "trail": trail.text,
    }


def save_streams(tx: Transaction, rows: Iterable[dict[str, Any]]) -> None:
    """Put streams and their last assessments in the place of the earlier ones, all at once."""
    tx.insert_many(s, rows)


class Said(msgspec.Struct, frozen=True):
    """What a look at all guardrails at once needs of an assessment."""

    name: str
    outcome: str
    action: Action
    sentence: str
    e_value: float | None = None
    threshold: float | None = None
    n: int = 0
    dry_run: bool = False


_said = msgspec.json.Decoder(Said)


def said_of_all(connection: Connection) -> dict[str, list[Said]]:
    """The last word of every guardrail of every rollout's present epoch."""
    of = and_(s.c.rollout == t.rollouts.c.name, s.c.epoch == t.rollouts.c.epoch)
    found: dict[str, list[Said]] = {}
    for rollout, text in connection.execute(select(s.c.rollout, s.c.assessment).where(of)).all():
        found.setdefault(rollout, []).append(_said.decode(text))
    return found


def assessments(connection: Connection, rollout: str, *, epoch: int) -> dict[str, dict[str, Any]]:
    """The last word of each guardrail of one rollout's present epoch, and the trail that led to it."""
    rows = connection.execute(
        select(s.c.guardrail, s.c.assessment, s.c.trail).where(s.c.rollout == rollout, s.c.epoch == epoch)
    )
    return {row.guardrail: {**json.loads(row.assessment), "trail": points_of(row.trail)} for row in rows}
