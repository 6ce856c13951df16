"""Does the evidence come from enough people, from lately, and from judges who agree?"""

from datetime import datetime, timedelta

from app.domain.clock import rfc3339, to_us
from app.domain.condition import Condition, GateOutcome, proof, rate, told
from app.domain.evidence import Evidence
from app.domain.reliability import ac1
from app.domain.sequential import Group, upper


def actors(evidence: Evidence, *, at_least: int, per_day: float | None) -> Condition:
    """So many different actors are behind it: one alone can make any number of situations."""
    n = evidence.actors
    more = max(at_least - n, 0)
    outcome = GateOutcome.INSUFFICIENT if more else GateOutcome.PASS
    said = f"{n} different actors, needs {at_least}"
    judged = Condition("actors", outcome, said, float(n), None, float(at_least), n, more)
    return told(judged, per_day, "actor")


def freshness(latest_at: datetime | None, *, stale_after_days: float, now: datetime) -> Condition:
    """The latest observation of the epoch is not so old that another world may have come."""
    if latest_at is None:
        said = "no observation in this epoch yet"
        return Condition("freshness", GateOutcome.INSUFFICIENT, said, limit=stale_after_days)
    days = max((now - latest_at) / timedelta(days=1), 0.0)
    since = rfc3339(to_us(latest_at))
    stale = days > stale_after_days
    outcome = GateOutcome.INSUFFICIENT if stale else GateOutcome.PASS
    said = f"evidence is stale since {since}, the latest observation" if stale else f"observed until {since}"
    return Condition("freshness", outcome, said, days, None, stale_after_days)


def reviewers(evidence: Evidence, *, limit: float, alpha: float, per_day: float | None) -> Condition:
    """Two people who judge the same blind say the same: in more than `limit` of the pairs, by the same test
    as all rates, and by Gwet's AC1, which chance does not flatter.
    """
    pairs = evidence.doubles
    n, alike = sum(pairs.values()), sum(n for (first, second), n in pairs.items() if first is second)
    groups, beyond_chance = [Group(n, n - alike)], ac1(pairs)
    outcome, more = proof(groups, 1 - limit, alpha)
    value, bound = (alike / n, 1 - upper(groups, alpha)) if n else (None, None)
    said = f"reviewers agree on {rate(value)} of {n}, lower bound {rate(bound)}, AC1 {rate(beyond_chance)}"
    said += f", needs above {rate(limit)}"
    judged = Condition("reviewers", outcome, said, value, bound, limit, n, more)
    if outcome is GateOutcome.PASS and beyond_chance is not None and beyond_chance < limit:
        said += ": their agreement is hardly more than chance would bring"
        return Condition("reviewers", GateOutcome.INSUFFICIENT, said, value, bound, limit, n)
    return told(judged, per_day, "double review")
