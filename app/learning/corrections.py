"""Which verdicts may teach, and what does each of them teach?"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from app.domain.decision import Decision
from app.domain.role import Role
from app.domain.sampling import ReviewMode
from app.domain.situation import Situation, canonical, parse_situation
from app.errors import InvalidSituation, Refused
from app.store import tables as t
from app.store.people import PEOPLE

EXAMPLES_AT_LEAST = 50
ALL = "all"

_MODES = set(ReviewMode)
_LATER = {"second", "third"}  # judged blind, whatever the review was
_SOURCES = {"review", "report", *_LATER}
_KINDS = {"binding", "drawn", "report"}  # not those that a reviewer picked
_ACTOR_SHARE, _ACTOR_AT_LEAST = 0.05, 3  # EVIDENCE.md 7: what one actor may weigh
_JUDGES = {Role.REVIEWER, Role.ADMIN}


@dataclass(frozen=True, slots=True)
class Example:
    """One situation with its right decision. `judge`, `model` and `category` belong to verdicts."""

    id: str
    situation: Situation
    decision: Decision
    legacy: Decision
    judge: str | None = None
    mode: str | None = None
    model: Decision | None = None
    category: str | None = None
    notes: str | None = None

    @property
    def actor(self) -> str | None:
        """Whose situation it is; nobody's where it was generated."""
        return None if self.judge is None else self.situation.actor_id


@dataclass(frozen=True, slots=True)
class Corrections:
    """What may teach, oldest first, and how many verdicts were left out, by reason."""

    examples: tuple[Example, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the examples come from, JSON-ready."""
        judged = [each for each in self.examples if each.judge is not None]
        return {
            "verdicts": len(judged),
            "generated": len(self.examples) - len(judged),
            "by_reviewer": dict(Counter(str(each.judge) for each in judged)),
            "by_mode": dict(Counter(str(each.mode) for each in judged)),
            "actors": len({each.actor for each in judged}),
            "left_out": dict(self.left_out),
        }


def collect(connection: Connection, rollout: str, *, reviewer_share: float) -> Corrections:
    """The verdicts in force on a rollout, or on `all`, that may teach.

    Left out are verdicts without provenance (no reviewer's key, an unstated mode, one's own situation), of
    erased situations, where the legacy engine failed, that contradict each other on one situation, and
    what one reviewer (above `reviewer_share`, 0..1) or one actor (above 5 %, at least 3) has too many of.
    """
    left_out: Counter[str] = Counter()
    known = []
    for row in _standing(connection, rollout):
        fault = _fault(row)
        if fault is None:
            known.append(_example(row))
        else:
            left_out[fault] += 1
    settled = _settled(known, left_out)
    spread = _capped(settled, lambda each: each.actor, share=_ACTOR_SHARE, at_least=_ACTOR_AT_LEAST)
    kept = _capped(spread, lambda each: each.judge, share=reviewer_share, at_least=0)
    left_out["actor has too many"] = len(settled) - len(spread)
    left_out["reviewer has too many"] = len(spread) - len(kept)
    return Corrections(tuple(kept), +left_out)


def read_examples(path: Path) -> tuple[Example, ...]:
    """Generated examples, one JSON object a line: `{id, situation, decision, legacy}`, and whatever else.

    Raises `Refused` naming the line that is wrong, `OSError` where the file cannot be read.
    """
    lines = path.read_bytes().split(b"\n")
    return tuple(_generated(path, number, line) for number, line in enumerate(lines, 1) if line.strip())


def require_enough(corrections: Corrections) -> None:
    """Raises `Refused` below 50 examples, saying how many there are and what was left out."""
    n = len(corrections.examples)
    if n < EXAMPLES_AT_LEAST:
        gone = ", ".join(f"{why}: {count}" for why, count in corrections.left_out.items())
        raise Refused(
            f"{n} examples may teach, and {EXAMPLES_AT_LEAST} are needed"
            + (f" (left out: {gone})" if gone else "")
        )


def _standing(connection: Connection, rollout: str) -> Iterable[RowMapping]:
    """Verdicts that were neither undone nor superseded, with all that says where they come from."""
    v, r, d, s, k = t.verdicts, t.reviews, t.decisions, t.situations, PEOPLE
    query = (
        select(
            *(v.c.id, v.c.decision_id, v.c.judge, v.c.source, v.c.decision, v.c.category, v.c.notes),
            *(v.c.llm_decision, r.c.kind, r.c.mode, d.c.key_id, d.c.legacy_decision, d.c.legacy_error),
            *(s.c.actor_id, s.c.body, k.c.roles, k.c.actors),
        )
        .select_from(
            v.join(r, r.c.id == v.c.review_id)
            .join(d, d.c.id == v.c.decision_id)
            .join(s, s.c.decision_id == d.c.id, isouter=True)
            .join(k, k.c.id == v.c.judge, isouter=True)
        )
        .where(v.c.decision.is_not(None))
        .where(v.c.id.not_in(select(v.c.supersedes).where(v.c.supersedes.is_not(None))))
        .order_by(v.c.id)
    )
    if rollout != ALL:
        query = query.where(v.c.rollout == rollout)
    return connection.execute(query).mappings()


def _fault(row: RowMapping) -> str | None:
    """Why a verdict may not teach."""
    if row["roles"] is None or not _JUDGES & set(row["roles"].split()):
        return "no reviewer's key"
    if row["source"] not in _SOURCES or row["kind"] not in _KINDS or row["mode"] not in _MODES:
        return "unknown source"
    if row["body"] is None:
        return "situation erased"
    if row["key_id"] == row["judge"] or row["actor_id"] in json.loads(row["actors"]):
        return "own situation"
    if row["legacy_error"] is not None or row["legacy_decision"] is None:
        return "legacy engine failed"
    return None


def _example(row: RowMapping) -> Example:
    return Example(
        id=row["decision_id"],
        situation=parse_situation(json.loads(row["body"])),
        decision=Decision(row["decision"]),
        legacy=Decision(row["legacy_decision"]),
        judge=row["judge"],
        mode=ReviewMode.BLIND if row["source"] in _LATER else row["mode"],
        model=Decision(row["llm_decision"]) if row["llm_decision"] else None,
        category=row["category"],
        notes=row["notes"],
    )


def _settled(examples: Sequence[Example], left_out: Counter[str]) -> list[Example]:
    """One example a situation, the latest; none where the verdicts on it differ."""
    by_situation: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_situation[canonical(example.situation)].append(example)
    settled = []
    for same in by_situation.values():
        if len({each.decision for each in same}) > 1:
            left_out["contradicted"] += len(same)
        else:
            left_out["repeated"] += len(same) - 1
            settled.append(same[-1])
    return settled


def _capped(
    examples: Sequence[Example], owner: Callable[[Example], str | None], *, share: float, at_least: int
) -> list[Example]:
    """So many of each owner that none has more than `share` of what is kept, or `at_least`.

    Which of them stay is decided by a hash of their ids: nobody can choose.
    """
    held = Counter(owner(each) for each in examples)
    most = max(held.values(), default=0)
    while most > at_least and most > share * sum(min(count, most) for count in held.values()):
        most -= 1
    kept, taken = [], Counter[str | None]()
    for example in sorted(examples, key=lambda each: hashlib.sha256(each.id.encode()).digest()):
        taken[owner(example)] += 1
        if taken[owner(example)] <= most:
            kept.append(example)
    return sorted(kept, key=lambda each: each.id)


def _generated(path: Path, number: int, line: bytes) -> Example:
    try:
        raw = json.loads(line)
        return Example(
            id=str(raw["id"]),
            situation=parse_situation(raw["situation"]),
            decision=Decision(raw["decision"]),
            legacy=Decision(raw["legacy"]),
        )
    except KeyError as error:
        raise Refused(f"{path}:{number}: is no example: {error} is missing") from error
    except (ValueError, TypeError, InvalidSituation) as error:
        raise Refused(f"{path}:{number}: is no example: {error}") from error
