"""What has each guardrail seen so far, and what did it last say?"""

import json
from typing import Any

from sqlalchemy import Connection, select

from app.domain.stream import StreamState, from_json, to_json
from app.store import tables as t
from app.store.transaction import Transaction


def load_streams(connection: Connection) -> dict[tuple[str, str], StreamState]:
    """Every stream by (rollout, guardrail)."""
    rows = connection.execute(select(t.guardrail_streams))
    return {(row.rollout, row.guardrail): from_json(row.state) for row in rows}


def save_streams(
    tx: Transaction, streams: dict[tuple[str, str], tuple[StreamState, dict[str, Any]]], *, now_us: int
) -> None:
    """Put streams and their last assessments in the place of the earlier ones, all at once."""
    rows = [
        {
            "rollout": rollout,
            "guardrail": guardrail,
            "epoch": state.epoch,
            "state": to_json(state),
            "updated_us": now_us,
            "assessment": json.dumps(assessment),
        }
        for (rollout, guardrail), (state, assessment) in streams.items()
    ]
    tx.insert_many(t.guardrail_streams, rows)


def assessments(connection: Connection, rollout: str, *, epoch: int) -> dict[str, dict[str, Any]]:
    """The last word of each guardrail of one rollout's present epoch."""
    s = t.guardrail_streams
    rows = connection.execute(
        select(s.c.guardrail, s.c.assessment).where(s.c.rollout == rollout, s.c.epoch == epoch)
    )
    return {row.guardrail: json.loads(row.assessment) for row in rows}
