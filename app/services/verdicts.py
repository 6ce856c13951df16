"""What may a person say of a decision, and what does it add to the evidence?"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from app.domain.advisory import Outcome
from app.domain.counters import Count, retracted, verdict_counts
from app.domain.decision import Category, Decision
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


def standing_before(tx: Transaction, row: RowMapping, source: str) -> RowMapping | None:
    """The verdict that a new one takes the place of. A report leaves a binding one alone, and the reverse."""
    alike = [
        verdict
        for verdict in standing_verdicts(tx.connection, row["id"])
        if binds(row, verdict["source"]) == binds(row, source)
    ]
    return alike[-1] if alike else None


def answers_to(tx: Transaction, row: RowMapping) -> dict[str, Decision]:
    """What the versions that looked at a reviewed decision said of it, the review's own first."""
    answers = {}
    if row["model_decision"] is not None:
        answers[row["version"]] = Decision(row["model_decision"])
    seen = candidate_advisory(tx.connection, row["decision_id"])
    if seen is not None and seen["a_outcome"] == Outcome.OK:
        answers.setdefault(seen["a_version"], Decision(seen["a_decision"]))
    return answers


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


def count_for_candidate(tx: Transaction, row: RowMapping, verdict: RowMapping, now_us: int) -> None:
    """What a verdict says of the rollout's candidate, which has only now looked at its decision."""
    for version, counts in _counts_of(tx, row, verdict):
        if version != row["version"]:
            count(tx, row, counts, now_us, version=version)


def count(tx: Transaction, row: RowMapping, counts: Iterable[Count], now_us: int, *, version: str) -> None:
    """Add to a version's evidence of the epoch that the reviewed decision was made in."""
    minute = minute_of(now_us)
    for metric, label, n in counts:
        tx.count(CounterKey(row["rollout"], version, row["epoch"], minute, metric, label), n)


def _counts_of(
    tx: Transaction, row: RowMapping, verdict: RowMapping | dict[str, Any]
) -> Iterator[tuple[str, tuple[Count, ...]]]:
    """What a verdict adds to the evidence of each version that looked."""
    answers, said, draw = answers_to(tx, row), Decision(verdict["decision"]), _draw_for(row, verdict)
    active = answers.get(row["version"])
    for version, answer in answers.items():
        counts = verdict_counts(answer, said, draw)
        # An assisted reviewer has seen what the active version says, but not what the candidate does.
        blind = row["mode"] == ReviewMode.BLIND
        if version != row["version"] and active is not None and draw is not None and blind:
            counts += paired_counts(active, answer, said, draw)
        yield version, counts


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
