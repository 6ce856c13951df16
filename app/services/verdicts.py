"""What may a person say of a decision, and what does it add to the evidence?"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from app.domain.advisory import Outcome
from app.domain.comparison import Category
from app.domain.counters import Count, retracted, verdict_counts
from app.domain.decision import Decision
from app.domain.experiment import verdict_counts as paired_counts
from app.domain.role import Principal
from app.domain.sampling import Draw, ReviewMode
from app.errors import Conflict, Forbidden, InvalidInput
from app.services.records import draw_of
from app.store import tables as t
from app.store.counters import minute_of
from app.store.decisions import candidate_advisory
from app.store.ids import new_id
from app.store.reviews import standing_verdicts
from app.store.transaction import CounterKey, Transaction


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


def standing_before(tx: Transaction, row: RowMapping) -> RowMapping | None:
    """The verdict that a new one takes the place of. A report leaves a binding one alone, and the reverse."""
    if row["kind"] == "binding":
        return None
    return next(reversed(standing_verdicts(tx.connection, row["id"])), None)


def count_verdict(
    tx: Transaction, row: RowMapping, verdict: RowMapping | dict[str, Any], now_us: int
) -> None:
    """Add what a verdict says to the evidence of the epoch that its decision was made in."""
    for version, counts in _counts_of(tx, row, verdict):
        count(tx, row, counts, now_us, version=version)


def discount_verdict(tx: Transaction, row: RowMapping, verdict: RowMapping, now_us: int) -> None:
    """Take back what an undone or superseded verdict had added."""
    for version, counts in _counts_of(tx, row, verdict):
        count(tx, row, retracted(counts), now_us, version=version)


def count_for_candidate(
    tx: Transaction, row: RowMapping, verdict: RowMapping | dict[str, Any], now_us: int
) -> None:
    """What a verdict says of the rollout's candidate, which has only now looked at its decision."""
    for version, counts in _counts_for_candidate(tx, row, verdict):
        count(tx, row, counts, now_us, version=version)


def count(tx: Transaction, row: RowMapping, counts: Iterable[Count], now_us: int, *, version: str) -> None:
    """Add to a version's evidence of the epoch that the reviewed decision was made in."""
    minute = minute_of(now_us)
    for metric, label, n in counts:
        tx.count(CounterKey(row["rollout"], version, row["epoch"], minute, metric, label), n)


def _counts_of(
    tx: Transaction, row: RowMapping, verdict: RowMapping | dict[str, Any]
) -> Iterator[tuple[str, tuple[Count, ...]]]:
    if row["model_decision"] is not None:
        model, draw = Decision(row["model_decision"]), _draw_for(row, verdict)
        yield row["version"], verdict_counts(model, Decision(verdict["decision"]), draw)
    yield from _counts_for_candidate(tx, row, verdict)


def _counts_for_candidate(
    tx: Transaction, row: RowMapping, verdict: RowMapping | dict[str, Any]
) -> Iterator[tuple[str, tuple[Count, ...]]]:
    seen = candidate_advisory(tx.connection, row["decision_id"])
    if seen is None or seen["outcome"] != Outcome.OK or seen["version"] == row["version"]:
        return
    candidate, said, draw = Decision(seen["decision"]), Decision(verdict["decision"]), _draw_for(row, verdict)
    counts = verdict_counts(candidate, said, draw)
    # An assisted reviewer has seen what the active version says, but not what the candidate does.
    if draw is not None and row["model_decision"] is not None and row["mode"] == ReviewMode.BLIND:
        counts += paired_counts(Decision(row["model_decision"]), candidate, said, draw)
    yield seen["version"], counts


def _draw_for(row: RowMapping, verdict: RowMapping | dict[str, Any]) -> Draw | None:
    """How the judged decision was drawn; a report beside a binding verdict is no random sample."""
    reported = row["kind"] == "binding" and not binds(row, verdict["source"])
    return None if reported else draw_of(row, row)


def write_verdict(
    tx: Transaction,
    row: RowMapping,
    verdict: Verdict | None,
    principal: Principal,
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
        "judge": principal.key_id,
        "source": source,
        "decision": said,
        "category": verdict.category if verdict else None,
        "notes": verdict.notes if verdict else None,
        "llm_decision": model,
        "matches": None if model is None or said is None else model == said,
        "supersedes": supersedes["id"] if supersedes else None,
    }
    tx.insert(t.verdicts, written)
    return written


def check_may_judge(row: RowMapping, principal: Principal, now_us: int) -> None:
    """Raises `Forbidden` for one's own situation, `Conflict` where it is too late or somebody else holds it."""
    check_not_own(row, principal)
    if row["status"] == "judged":
        raise Conflict("already-judged", "this review has a verdict; its judge can undo it")
    if row["status"] != "open" or row["due_us"] <= now_us:
        raise Conflict("review-expired", "this review is past its time and takes no verdict")
    held = row["claimed_by"] not in (None, principal.key_id) and (row["claim_expires_us"] or 0) > now_us
    if held:
        raise Conflict("claimed", "somebody else holds this review")


def check_not_own(row: RowMapping, principal: Principal) -> None:
    if row["key_id"] == principal.key_id or row["actor_id"] in principal.actors:
        raise Forbidden("own-situation", "nobody judges a situation whose actor or key is theirs")
