"""What was decided in a period, in decision order, with all that was said of it?"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, Select, func, select

from app.domain.advisory import Advisory, Outcome, Probabilities
from app.domain.clock import rfc3339
from app.domain.decision import Decision, LegacyAnswer
from app.domain.phase import Phase
from app.domain.routing import FallbackReason
from app.domain.situation import Situation, parse_situation
from app.store import tables as t
from app.store.database import Database

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A decision's review with the verdict in force, if there is one; a probability where it was drawn."""

    inclusion_probability: float | None
    verdict: Decision | None
    judged_us: int | None
    due_us: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """One decision as it left. Without its situation where that was erased; `advisory` is what the active
    version said of it, if it looked, and `counted` whether that was evidence.
    """

    id: str
    at_us: int
    rollout: str
    epoch: int
    version: str
    phase: Phase
    exposed: bool
    decision: Decision
    fallback_reason: FallbackReason | None
    legacy: LegacyAnswer
    situation: Situation | None
    advisory: Advisory | None
    counted: bool
    review: Reviewed | None


def count(database: Database, *, since_us: int, until_us: int) -> int:
    """How many decisions were made from an instant on and before another."""
    of = select(func.count()).select_from(t.decisions).where(*_between(since_us, until_us))
    with database.read(at_most_s=math.inf) as connection:
        return connection.execute(of).scalar_one()


def recorded(database: Database, *, since_us: int, until_us: int) -> Iterator[Recorded]:
    """All of them. Each page is a reading of its own, so that a server beside it keeps its log short."""
    after = ""
    while True:
        following = _wide().where(t.decisions.c.id > after, *_between(since_us, until_us))
        with database.read(at_most_s=math.inf) as connection:
            page = connection.execute(following.order_by(t.decisions.c.id).limit(_PAGE)).mappings().all()
        yield from (_recorded(row) for row in page)
        if len(page) < _PAGE:
            return
        after = page[-1]["id"]


def rollbacks(database: Database, *, since_us: int, until_us: int) -> list[dict[str, Any]]:
    """What took rollouts down in the period, oldest first: `at`, `rollout`, `automatic`, `reason`."""
    c = t.transitions.c
    period = (c.kind == "rollback", c.created_us >= since_us, c.created_us < until_us)
    query = select(c.created_us, c.rollout, c.automatic, c.reason).where(*period).order_by(c.id)
    with database.read(at_most_s=math.inf) as connection:
        return [
            {
                "at": rfc3339(row["created_us"]),
                **{name: row[name] for name in ("rollout", "automatic", "reason")},
            }
            for row in connection.execute(query).mappings()
        ]


def _between(since_us: int, until_us: int) -> tuple[Any, Any]:
    at = t.decisions.c.created_us
    return at >= since_us, at < until_us


def _wide() -> Select[Any]:
    d, s, a, r = t.decisions, t.situations, t.advisories, t.reviews
    joined = (
        d.join(s, s.c.decision_id == d.c.id, isouter=True)
        .join(a, a.c.decision_id == d.c.id, isouter=True)
        .join(r, r.c.decision_id == d.c.id, isouter=True)
    )
    return select(
        d,
        s.c.body,
        *(column.label(f"a_{column.name}") for column in a.c),
        *(r.c[name] for name in ("inclusion_probability", "verdict", "judged_us", "due_us")),
    ).select_from(joined)


def _recorded(row: RowMapping) -> Recorded:
    reason, answered = row["fallback_reason"], row["a_outcome"] is not None
    return Recorded(
        **{name: row[name] for name in ("id", "rollout", "epoch", "version", "exposed")},
        at_us=row["created_us"],
        phase=Phase(row["phase"]),
        decision=Decision(row["decision"]),
        fallback_reason=FallbackReason(reason) if reason else None,
        legacy=LegacyAnswer(
            row["legacy_engine"],
            Decision(row["legacy_decision"]),
            row["legacy_rule"],
            row["legacy_latency_ms"],
            row["legacy_error"],
        ),
        situation=parse_situation(json.loads(row["body"])) if row["body"] else None,
        advisory=_advisory(row) if answered else None,
        counted=row["a_counted"] is not False and not row["a_cached"],
        review=_review(row) if row["due_us"] is not None else None,
    )


def _advisory(row: RowMapping) -> Advisory:
    shares = [row[f"a_p_{label}"] for label in Decision]
    said = row["a_decision"]
    same = ("version", "latency_ms", "started", "confidence", "coverage", "prompt_tokens", "cached")
    return Advisory(
        **{name: row[f"a_{name}"] for name in same},
        outcome=Outcome(row["a_outcome"]),
        decision=Decision(said) if said else None,
        probabilities=None if None in shares else Probabilities(*shares),
    )


def _review(row: RowMapping) -> Reviewed:
    verdict = row["verdict"]
    return Reviewed(
        row["inclusion_probability"], Decision(verdict) if verdict else None, row["judged_us"], row["due_us"]
    )
