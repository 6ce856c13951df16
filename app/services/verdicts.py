"""What may a person say of a decision, and who may?"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping

from app.domain.decision import Category, Decision
from app.errors import Conflict, Forbidden, InvalidInput
from app.store import tables as t
from app.store.ids import new_id
from app.store.reviews import SECOND, SECOND_DUE_US, Judge, judged_by, may_be_second, standing_verdicts
from app.store.transaction import Transaction

CLAIM_US = 600_000_000  # how long a claim holds a review


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a person says of one decision."""

    decision: Decision
    category: str | None = None
    notes: str | None = None


def parse_verdict(raw: Any) -> Verdict:
    """Check a verdict's body; raises `InvalidInput` naming every field that is wrong."""
    if not isinstance(raw, dict):
        raise InvalidInput([("", "a verdict is a JSON object")])
    errors = [
        (key, "is not a member of a verdict") for key in raw if key not in ("decision", "category", "notes")
    ]
    said = raw.get("decision")
    if said not in list(Decision):
        errors.append(("decision", f"must be one of {', '.join(Decision)}"))
    category, notes = raw.get("category"), raw.get("notes")
    if category is not None and category not in list(Category):
        errors.append(("category", f"must be one of {', '.join(Category)}"))
    if notes is not None and (not isinstance(notes, str) or "\x00" in notes):
        errors.append(("notes", "must be a text without NUL characters"))
    if errors:
        raise InvalidInput(errors)
    return Verdict(Decision(str(said)), category, notes)


def binds(row: RowMapping, source: str) -> bool:
    """Whether a verdict from there is what the caller gets: a report comes after the fact."""
    return bool(row["kind"] == "binding") and source == "review"


def standing_before(tx: Transaction, row: RowMapping, source: str) -> RowMapping | None:
    """The verdict that a new one takes the place of.

    A report leaves a binding one alone, and the reverse; the second person's stands beside every other.
    """
    alike = [
        verdict
        for verdict in standing_verdicts(tx.connection, row["id"])
        if verdict["source"] != SECOND and binds(row, verdict["source"]) == binds(row, source)
    ]
    return alike[-1] if alike and source != SECOND else None


def write_verdict(
    tx: Transaction,
    row: RowMapping,
    verdict: Verdict | None,
    judge: Judge,
    *,
    now_us: int,
    source: str,
    supersedes: RowMapping | None,
) -> dict[str, Any]:
    """Append a verdict, or its undoing where it is None; returns its row."""
    model = row["model_decision"]
    said = verdict.decision.value if verdict else None
    written = {
        "id": new_id(),
        "review_id": row["id"],
        "decision_id": row["decision_id"],
        "created_us": now_us,
        "rollout": row["rollout"],
        "epoch": row["epoch"],
        "version": row["version"],
        "judge": judge.key_id,
        "source": source,
        "decision": said,
        "category": verdict.category if verdict else None,
        "notes": verdict.notes if verdict else None,
        "llm_decision": model,
        "matches": None if model is None or said is None else model == said,
        "supersedes": supersedes["id"] if supersedes else None,
        "claimed_us": row["claim_expires_us"] - CLAIM_US if row["claimed_by"] == judge.key_id else None,
    }
    tx.insert(t.verdicts, written)
    return written


def judges_as(connection: Connection, row: RowMapping, judge: Judge, now_us: int) -> str:
    """The source of the verdict that a person may give: `review`, or `second`.

    Raises `Forbidden` for one's own situation, `Conflict` where it is too late or somebody else holds it.
    """
    check_not_own(row, judge)
    second = may_be_second(connection, row, judge)
    if row["status"] == "judged" and not second:
        raise Conflict("already-judged", "this review has a verdict; its judge can undo it")
    due_us = row["judged_us"] + SECOND_DUE_US if second else row["due_us"]
    if (row["status"] != "open" and not second) or due_us <= now_us:
        raise Conflict("review-expired", "this review is past its time and takes no verdict")
    if not second and judged_by(connection, row["id"], judge, source=SECOND):
        raise Conflict("already-judged", "you were the second to judge this, and cannot be the first as well")
    held = row["claimed_by"] not in (None, judge.key_id) and (row["claim_expires_us"] or 0) > now_us
    if held:
        raise Conflict("claimed", "somebody else holds this review")
    return SECOND if second else "review"


def check_not_own(row: RowMapping, judge: Judge) -> None:
    if row["key_id"] == judge.key_id or row["actor_id"] in judge.actors:
        raise Forbidden("own-situation", "nobody judges a situation whose actor or key is theirs")
