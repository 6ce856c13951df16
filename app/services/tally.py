"""What do the verdicts on one review add to the evidence, and when do they roll back?

Counted is what stands, all at once: whatever happens to a review, what it added before is taken back and what
it adds now is added. So nothing counts twice, and what is undone leaves nothing behind.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping

from app.domain.advisory import Outcome
from app.domain.clock import to_us
from app.domain.counters import ALL, Count, Metric, double_counts, verdict_counts
from app.domain.decision import Decision
from app.domain.experiment import verdict_counts as paired_counts
from app.domain.rollout import RolloutPolicy
from app.domain.sampling import Draw, ReviewMode
from app.services.plane import Plane
from app.services.records import draw_of
from app.services.transitions import AUTOMATION, roll_back
from app.services.verdicts import binds, foremost
from app.store.counters import minute_of
from app.store.decisions import candidate_advisory
from app.store.reviews import SECOND, THIRD, has_rolled_back, lock_review, standing_verdicts
from app.store.rollouts import lock_state
from app.store.transaction import CounterKey, Transaction

Tally = Counter[tuple[str, str, str]]  # version, metric, label

_WRONG_ALLOW = (Metric.WRONG_ALLOW.value, ALL)


def tally(tx: Transaction, row: RowMapping) -> Tally:
    """What a review adds as it stands, to every version that looked at its decision."""
    answers, standing = _answers(tx, row), standing_verdicts(tx.connection, row["id"])
    added: Tally = Counter()
    for verdict in _counted(row, standing):
        for version in answers:
            _add(added, version, _counts_of(row, verdict, answers, version))
    for version in answers:  # two verdicts may confirm it, but it was one allow
        added[version, *_WRONG_ALLOW] = min(added[version, *_WRONG_ALLOW], 1)
    _add(added, row["version"], double_counts(*_pair(standing)))
    return +added


def recount(tx: Transaction, review_id: str, before: Tally, now_us: int) -> frozenset[str]:
    """Let the evidence follow what a review has become; returns the versions whose allow is now known wrong."""
    row = lock_review(tx, review_id)
    after = tally(tx, row)
    for version, metric, label in sorted(after.keys() | before.keys()):
        change = after[version, metric, label] - before[version, metric, label]
        if change:
            count(tx, row, ((metric, label, change),), now_us, version=version)
    wrong = [version for version, *counted in after if tuple(counted) == _WRONG_ALLOW]
    return frozenset(version for version in wrong if not before[version, *_WRONG_ALLOW])


def follow(
    tx: Transaction, row: RowMapping, before: Tally, plane: Plane, *, now: datetime
) -> dict[str, Any] | None:
    """Recount; returns the rollback that a wrong allow means, once it is confirmed (law 6).

    The active version may have said it while it was the candidate, and taken over since. What several people
    say of one allow goes back once.
    """
    confirmed, policy = recount(tx, row["id"], before, to_us(now)), policy_of(plane, row["rollout"])
    if not confirmed or policy is None or not policy.risk.is_high:
        return None
    state, decision_id = lock_state(tx, row["rollout"]), row["decision_id"]
    if state.version not in confirmed:
        return None
    if has_rolled_back(tx.connection, state.name, state.version, decision_id=decision_id):
        return None
    standing = [verdict["decision"] for verdict in standing_verdicts(tx.connection, row["id"])]
    said = next(verdict for verdict in reversed(standing) if verdict != Decision.ALLOW)
    reason = f"confirmed wrong allow: {state.version} said allow, a person said {said}, on {policy.risk} risk"
    facts = {"guardrail": "wrong_allow", "decision_id": decision_id, "verdict": said}
    return roll_back(tx, state, policy, actor=AUTOMATION, reason=reason, now=now, evidence=facts)


def policy_of(plane: Plane, rollout: str) -> RolloutPolicy | None:
    """None where the rollout has been taken out of the policy since the decision."""
    book = plane.view.policy.book
    return book.get(rollout) if rollout in book.names else None


def count(tx: Transaction, row: RowMapping, counts: Iterable[Count], now_us: int, *, version: str) -> None:
    """Add to a version's evidence of the epoch that the reviewed decision was made in."""
    minute = minute_of(now_us)
    for metric, label, n in counts:
        tx.count(CounterKey(row["rollout"], version, row["epoch"], minute, metric, label), n)


def _add(added: Tally, version: str, counts: Iterable[Count]) -> None:
    for metric, label, n in counts:
        added[version, metric, label] += n


def _counted(row: RowMapping, standing: Sequence[RowMapping]) -> Iterator[RowMapping]:
    """The verdicts that are evidence by themselves: a second one only while no third has decided."""
    for binding in (True, False):
        verdict = foremost(row, standing, binding=binding)
        if verdict is not None:
            yield verdict
    if all(verdict["source"] != THIRD for verdict in standing):
        yield from (verdict for verdict in standing if verdict["source"] == SECOND)


def _answers(tx: Transaction, row: RowMapping) -> dict[str, Decision]:
    """What the versions that looked at a reviewed decision said of it, the review's own first."""
    answers = {}
    if row["model_decision"] is not None:
        answers[row["version"]] = Decision(row["model_decision"])
    seen = candidate_advisory(tx.connection, row["decision_id"])
    if seen is not None and seen["a_outcome"] == Outcome.OK:
        answers.setdefault(seen["a_version"], Decision(seen["a_decision"]))
    return answers


def _counts_of(
    row: RowMapping, verdict: RowMapping, answers: dict[str, Decision], version: str
) -> tuple[Count, ...]:
    """What a verdict adds to the evidence of one version."""
    said, draw = Decision(verdict["decision"]), _draw_for(row, verdict)
    counts = verdict_counts(answers[version], said, draw)
    active = answers.get(row["version"])
    # An assisted reviewer has seen what the active version says, but not what the candidate does.
    blind = row["mode"] == ReviewMode.BLIND
    if version != row["version"] and active is not None and draw is not None and blind:
        counts += paired_counts(active, answers[version], said, draw)
    return counts


def _draw_for(row: RowMapping, verdict: RowMapping) -> Draw | None:
    """How the judged decision was drawn.

    What is said beside a binding verdict is no random sample, and of two verdicts the first is the sample's.
    """
    reported = row["kind"] == "binding" and not binds(row, verdict["source"])
    return None if reported or verdict["source"] == SECOND else draw_of(row, row)


def _pair(standing: Iterable[RowMapping]) -> tuple[Decision | None, Decision | None]:
    """What the first and the second reviewer say."""
    said = {verdict["source"]: Decision(verdict["decision"]) for verdict in standing}
    return said.get("review"), said.get(SECOND)
