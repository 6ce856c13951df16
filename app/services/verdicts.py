"""What may a person say of a decision, and who may?"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping

from app.domain.decision import Category, Decision, difference
from app.errors import Conflict, Forbidden, InvalidInput
from app.store import tables as t
from app.store.ids import new_id
from app.store.reviews import (
    LATER,
    SECOND,
    THIRD,
    Judge,
    asked_as,
    asked_until_us,
    change_review,
    judged_by,
    standing_verdicts,
)
from app.store.transaction import Transaction

CLAIM_US = 600_000_000  # how long a claim holds a review

_WEIGHT = {"review": 0, THIRD: 1, "report": 2}  # whose word stands, of those who spoke of one decision


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


def category_of(verdict: RowMapping) -> str | None:
    """How the model's answer differs from a verdict: by the person's word, else by which is the stricter."""
    said: str | None = verdict["category"]
    model = verdict["llm_decision"]
    if said is not None or model is None:
        return said
    return difference(Decision(model), Decision(verdict["decision"])).value


def binds(row: RowMapping, source: str) -> bool:
    """Whether a verdict from there is what the caller gets: a report comes after the fact."""
    return bool(row["kind"] == "binding") and source == "review"


def foremost(row: RowMapping, standing: Iterable[RowMapping], *, binding: bool) -> RowMapping | None:
    """The verdict that stands for a review, of those that bind or of those that do not.

    The third decides between the first two; whoever reports afterwards has seen them all. The second person's
    is a check of the first.
    """
    alike = (each for each in standing if each["source"] != SECOND and binds(row, each["source"]) == binding)
    return max(alike, key=lambda verdict: (_WEIGHT[verdict["source"]], verdict["id"]), default=None)


def standing_before(tx: Transaction, row: RowMapping, source: str) -> RowMapping | None:
    """The verdict that a new one takes the place of.

    A report leaves a binding one alone, and the reverse; a second or third person's stands beside every other.
    """
    if source in LATER:
        return None
    return foremost(row, standing_verdicts(tx.connection, row["id"]), binding=binds(row, source))


def third_status(standing: Iterable[RowMapping], before: str | None) -> str | None:
    """Whether a third person has judged, is wanted, or would have been: where the first two differ."""
    said = {verdict["source"]: verdict["decision"] for verdict in standing}
    if THIRD in said:
        return "judged"
    if "review" in said and SECOND in said and said["review"] != said[SECOND]:
        return "closed" if before == "closed" else "open"
    return None


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
        "claimed_us": row["claimed_us"] if row["claimed_by"] == judge.key_id else None,
    }
    tx.insert(t.verdicts, written)
    return written


def claim(tx: Transaction, row: RowMapping, judge: Judge, now_us: int) -> None:
    """Hold a review, or hold it longer, for ten minutes from now. Raises as `judges_as` does."""
    judges_as(tx.connection, row, judge, now_us)
    goes_on = row["claimed_by"] == judge.key_id and row["claim_expires_us"] > now_us
    since_us = row["claimed_us"] if goes_on else now_us
    change_review(
        tx, row["id"], claimed_by=judge.key_id, claim_expires_us=now_us + CLAIM_US, claimed_us=since_us
    )


def judges_as(connection: Connection, row: RowMapping, judge: Judge, now_us: int) -> str:
    """The source of the verdict that a person may give: `review`, `second` or `third`.

    Raises `Forbidden` for one's own situation, `Conflict` where it is too late or somebody else holds it.
    """
    check_not_own(row, judge)
    asked = asked_as(connection, row, judge)
    if row["status"] == "judged" and asked is None:
        raise Conflict("already-judged", "this review has a verdict; its judge can undo it")
    due_us = row["due_us"] if asked is None else asked_until_us(connection, row, asked)
    if (row["status"] != "open" and asked is None) or due_us <= now_us:
        raise Conflict("review-expired", "this review is past its time and takes no verdict")
    if asked is None and judged_by(connection, row["id"], judge, later=True):
        raise Conflict("already-judged", "you were the second to judge this, and cannot be the first as well")
    held = row["claimed_by"] not in (None, judge.key_id) and (row["claim_expires_us"] or 0) > now_us
    if held:
        raise Conflict("claimed", "somebody else holds this review")
    return asked or "review"


def check_not_own(row: RowMapping, judge: Judge) -> None:
    if row["key_id"] in judge.keys or row["actor_id"] in judge.actors:
        raise Forbidden("own-situation", "nobody judges a situation whose actor or key is theirs")
