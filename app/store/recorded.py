"""What was decided in a period, in decision order, with all that was said of it?"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import RowMapping, select

from app.domain.advisory import Advisory, Outcome, Probabilities
from app.domain.decision import Decision, LegacyAnswer
from app.domain.phase import Phase
from app.domain.routing import FallbackReason
from app.domain.situation import Situation, parse_situation
from app.store import tables as t
from app.store.database import Database

_PAGE = 500
_SHED = (Outcome.OVERLOADED, Outcome.OVERSIZE)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One decision as it left, with the advisory of the active version and the review, where there are any.

    `situation` is None where it was erased. `admitted` is false where it was no evidence because its situation
    or its actor had been heard enough. A drawn review has a probability; `verdict` is the one in force.
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
    admitted: bool
    inclusion_probability: float | None
    verdict: Decision | None
    judged_us: int | None
    due_us: int | None


def recorded(database: Database, *, since_us: int, until_us: int) -> Iterator[Recorded]:
    """From an instant on and before another. Each page is a reading of its own: a server may write beside it."""
    d, s, a, r = t.decisions, t.situations, t.advisories, t.reviews
    joined = (
        d.join(s, s.c.decision_id == d.c.id, isouter=True)
        .join(a, a.c.decision_id == d.c.id, isouter=True)
        .join(r, r.c.decision_id == d.c.id, isouter=True)
    )
    of_review = [r.c[name] for name in ("inclusion_probability", "verdict", "judged_us", "due_us")]
    of_advisory = [column.label(f"a_{column.name}") for column in a.c]
    period = (d.c.created_us >= since_us, d.c.created_us < until_us)
    query = select(d, s.c.body, *of_advisory, *of_review).select_from(joined).where(*period)
    after = ""
    while True:
        following = query.where(d.c.id > after).order_by(d.c.id).limit(_PAGE)
        with database.read(at_most_s=math.inf) as connection:
            page = connection.execute(following).mappings().all()
        yield from map(_recorded, page)
        if len(page) < _PAGE:
            return
        after = page[-1]["id"]


def _recorded(row: RowMapping) -> Recorded:
    legacy = (row[f"legacy_{name}"] for name in ("rule", "latency_ms", "error"))
    reason, verdict, advisory = row["fallback_reason"], row["verdict"], _advisory(row)
    same = ("id", "rollout", "epoch", "version", "exposed", "inclusion_probability", "judged_us", "due_us")
    # What was never computed, or did not count because of its exposure, was not found to be heard enough.
    could = row["exposed"] and advisory is not None and advisory.started and advisory.outcome not in _SHED
    return Recorded(
        **{name: row[name] for name in same},
        at_us=row["created_us"],
        phase=Phase(row["phase"]),
        decision=Decision(row["decision"]),
        fallback_reason=FallbackReason(reason) if reason else None,
        legacy=LegacyAnswer(row["legacy_engine"], Decision(row["legacy_decision"]), *legacy),
        situation=parse_situation(json.loads(row["body"])) if row["body"] else None,
        advisory=advisory,
        admitted=not could or row["a_counted"] is not False,
        verdict=Decision(verdict) if verdict else None,
    )


def _advisory(row: RowMapping) -> Advisory | None:
    if row["a_outcome"] is None:
        return None
    shares, said = [row[f"a_p_{label}"] for label in Decision], row["a_decision"]
    same = ("version", "latency_ms", "started", "confidence", "coverage", "prompt_tokens", "cached")
    return Advisory(
        **{name: row[f"a_{name}"] for name in same},
        outcome=Outcome(row["a_outcome"]),
        decision=Decision(said) if said else None,
        probabilities=None if None in shares else Probabilities(*shares),
    )
