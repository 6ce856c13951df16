"""What does the evidence prove of one thing that a gate asks for?

Rates pass and fail by the same anytime-valid test, either way.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil

from app.domain.clock import spoken
from app.domain.condition import Condition, GateOutcome, enough, percent, rate, span, told, unproven, waited
from app.domain.counters import Metric, bucket_edge_ms
from app.domain.evidence import Evidence
from app.domain.reliability import ac1
from app.domain.sequential import (
    Group,
    above,
    below,
    needed,
    no_events_needed,
    no_events_upper,
    upper,
    weighted_rate,
)

WRONG_ALLOW_LIMIT = 0.01  # of high and critical risk, where policies/rollouts.yaml names none
JUDGED_AT_LEAST = 0.90  # of the draws
VALIDATED_AT_LEAST = 60  # situations, for a validation to count
LATE_SHARE = 0.05  # "p95 below L" is "at most 5 % above L"


@dataclass(frozen=True, slots=True)
class Validated:
    """The latest validation of a version over enough situations. `current`: over the suites as they are now."""

    n: int
    pass_rate: float
    wrong_allows: int
    current: bool


def agreement(evidence: Evidence, *, limit: float, alpha: float, per_day: float | None) -> Condition:
    """The model's raw answer is the legacy engine's in more than `limit` of the pairs."""
    n, alike = evidence.compared, evidence.agreed
    judged = _above("agreement", "agreement", "compared", n, alike, limit=limit, alpha=alpha)
    if not evidence.independent:
        return unproven(
            judged, ", but the model is shown the legacy answer: this agreement is not independent"
        )
    return told(judged, per_day, "compared decision")


def reviewers(evidence: Evidence, *, limit: float, alpha: float, per_day: float | None) -> Condition:
    """Two people who judge the same blind say the same: in more than `limit` of the pairs, by the same test
    as all rates, and by Gwet's AC1, which chance does not flatter.
    """
    pairs = evidence.doubles
    n, alike = sum(pairs.values()), sum(n for (first, second), n in pairs.items() if first is second)
    judged = _above("reviewers", "reviewers' agreement", "judged twice", n, alike, limit=limit, alpha=alpha)
    beyond_chance = ac1(pairs)
    if beyond_chance is not None:
        judged = replace(judged, sentence=f"{judged.sentence}, AC1 {beyond_chance:.3g}")
        if judged.outcome is GateOutcome.PASS and beyond_chance < limit:
            return unproven(judged, ": their agreement is hardly more than chance would bring")
    return told(judged, per_day, "double review")


def override(evidence: Evidence, *, limit: float, alpha: float, per_day: float | None) -> Condition:
    """People override fewer than `limit` of the model's decisions, as estimated from drawn reviews."""
    n, groups = evidence.n(Metric.REVIEWED), evidence.override_groups
    return _below("override", "reviewed", groups, n, limit=limit, alpha=alpha, per_day=per_day)


def error(evidence: Evidence, *, limit: float, alpha: float, per_day: float | None) -> Condition:
    """Fewer than `limit` of the started observations time out, crash or are malformed."""
    n, groups = evidence.observed, [Group(evidence.observed, evidence.errors)]
    return _below("error", "observed", groups, n, limit=limit, alpha=alpha, per_day=per_day)


def latency(evidence: Evidence, *, limit_ms: float, alpha: float, per_day: float | None) -> Condition:
    """At most 5 % of the model's answers take longer than `limit_ms`."""
    n = evidence.n(Metric.LATENCY)
    outcome, more = proof([Group(n, evidence.above_ms(limit_ms))], LATE_SHARE, alpha)
    value, bound = evidence.percentile_ms(0.95), _latency_bound_ms(evidence, alpha)
    said = _seen("p95 latency", _ms(value), n, "observed", f"upper bound {_ms(bound)}")
    said += f", needs below {_ms(limit_ms)}"
    judged = Condition("latency_p95", outcome, said, value, bound, limit_ms, n, more)
    return told(judged, per_day, "observed decision")


def no_wrong_allow(evidence: Evidence) -> Condition:
    """No wrong allow is confirmed; how many were looked for is not asked, for nothing answers yet."""
    n, wrong = evidence.reviewed_allows, evidence.wrong_allows
    found = f"{wrong} wrong allow{'s' * (wrong > 1)} confirmed" if wrong else "no wrong allow"
    outcome = GateOutcome.FAIL if wrong else GateOutcome.PASS
    return Condition("wrong_allows", outcome, f"{found} among {n} judged allows", float(wrong), None, 0.0, n)


def wrong_allows(evidence: Evidence, *, limit: float, alpha: float, per_day: float | None) -> Condition:
    """No wrong allow is confirmed, and enough of the model's allows were drawn and judged to say so."""
    bare = no_wrong_allow(evidence)
    if bare.outcome is GateOutcome.FAIL:
        return replace(bare, limit=limit)
    n = evidence.reviewed_allows
    bound = no_events_upper(n, alpha)
    said = f"{bare.sentence}, upper bound {rate(bound)}, needs below {percent(limit)}"
    at_least = no_events_needed(limit, alpha)
    judged = enough("wrong_allows", said, n, at_least, per_day=per_day, what="judged allow")
    return replace(judged, value=0.0, bound=bound, limit=limit)


def soak(evidence: Evidence, *, days: float) -> Condition:
    """The epoch has been served for `days` with observations enough."""
    served = evidence.soak_days
    said = f"soak {span(served)} of {span(days)}"
    return waited("soak", said, served, days, n=len(evidence.soaked))


def reviewed(evidence: Evidence, *, at_least: int, per_day: float | None) -> Condition:
    """At least so many drawn reviews are judged."""
    n = evidence.n(Metric.REVIEWED)
    said = f"{n} drawn reviews judged, needs {at_least}"
    return enough("reviewed", said, n, at_least, per_day=per_day, what="reviewed decision")


def reviews_judged(evidence: Evidence, *, per_day: float | None) -> Condition:
    """Nearly all of what was drawn is judged: what lies unjudged may be what is wrong."""
    drawn, n = evidence.n(Metric.DRAWN), evidence.n(Metric.REVIEWED)
    said = f"{n} of {drawn} draws judged, needs {percent(JUDGED_AT_LEAST)} of them"
    asked = ceil(JUDGED_AT_LEAST * drawn)
    judged = enough("reviews_judged", said, n, asked, per_day=per_day, what="verdict")
    return replace(judged, value=n / drawn if drawn else None, limit=JUDGED_AT_LEAST, n=drawn)


def actors(evidence: Evidence, *, at_least: int, per_day: float | None) -> Condition:
    """So many different actors are behind it: one alone can make any number of situations."""
    said = f"{evidence.actors} different actors, needs {at_least}"
    return enough("actors", said, evidence.actors, at_least, per_day=per_day, what="actor")


def freshness(latest_at: datetime | None, *, stale_after_days: float, now: datetime) -> Condition:
    """The latest observation of the epoch is not so old that another world may have come."""
    if latest_at is None:
        said = "no observation in this epoch yet"
        return Condition("freshness", GateOutcome.INSUFFICIENT, said, limit=stale_after_days)
    days = max((now - latest_at) / timedelta(days=1), 0.0)
    stale = days > stale_after_days
    outcome = GateOutcome.INSUFFICIENT if stale else GateOutcome.PASS
    since = spoken(latest_at)
    said = f"evidence is stale since {since}, the latest observation" if stale else f"observed until {since}"
    return Condition("freshness", outcome, said, days, None, stale_after_days)


def validation(found: Validated | str | None, *, version: str, limit: float) -> Condition:
    """The version passes more than `limit` of the validation suites, as they are now; a text says why those
    cannot be read.

    The suites are chosen, not drawn: their pass rate is a fact about them and has no bound.
    """
    if isinstance(found, str):
        said = f"the suites cannot be read: {found}"
        return Condition("validation", GateOutcome.ERROR, said, limit=limit)
    if found is None or not found.current:
        said = f"the suites are not what {version} was last validated on"
        if found is None:
            said = f"no validation of {version} over {VALIDATED_AT_LEAST} situations or more"
        said += f": run phasegate validate {version} --record"
        return Condition("validation", GateOutcome.INSUFFICIENT, said, limit=limit)
    outcome = GateOutcome.PASS if found.pass_rate > limit else GateOutcome.FAIL
    said = f"validation {rate(found.pass_rate)} of {found.n}, {found.wrong_allows} wrong allows"
    said += f", needs above {percent(limit)}"
    return Condition("validation", outcome, said, found.pass_rate, None, limit, found.n)


def _below(
    name: str,
    done: str,
    groups: Sequence[Group],
    n: int,
    *,
    limit: float,
    alpha: float,
    per_day: float | None,
) -> Condition:
    """A rate of bad ones among `n`, held below its limit."""
    outcome, more = proof(groups, limit, alpha)
    value, bound = (weighted_rate(groups), upper(groups, alpha)) if n else (None, None)
    said = _seen(f"{name} rate", rate(value), n, done, f"upper bound {rate(bound)}")
    said += f", needs below {percent(limit)}"
    return told(Condition(name, outcome, said, value, bound, limit, n, more), per_day, f"{done} decision")


def _above(name: str, what: str, done: str, n: int, alike: int, *, limit: float, alpha: float) -> Condition:
    """A rate of good ones among `n`, held above its limit."""
    groups = [Group(n, n - alike)]
    outcome, more = proof(groups, 1 - limit, alpha)
    value, bound = (alike / n, 1 - upper(groups, alpha)) if n else (None, None)
    said = _seen(what, rate(value), n, done, f"lower bound {rate(bound)}")
    said += f", needs above {percent(limit)}"
    return Condition(name, outcome, said, value, bound, limit, n, more)


def _seen(what: str, value: str, n: int, done: str, bound: str) -> str:
    return f"{what} {value} of {n} {done}, {bound}" if n else f"{what}: nothing {done} yet"


def proof(groups: Sequence[Group], limit: float, alpha: float) -> tuple[GateOutcome, int | None]:
    """The outcome, and how many more observations it takes where it is insufficient."""
    if below(groups, limit, alpha):
        return GateOutcome.PASS, 0
    if above(groups, limit, alpha):
        return GateOutcome.FAIL, None
    return GateOutcome.INSUFFICIENT, needed(groups, limit, alpha)


def _latency_bound_ms(evidence: Evidence, alpha: float) -> float | None:
    """The smallest bucket edge that the p95 is proved to be below."""
    edges = sorted(bucket_edge_ms(int(label)) for label in evidence.of(Metric.LATENCY))
    n = evidence.n(Metric.LATENCY)

    def is_proved(edge_ms: float) -> bool:
        return below([Group(n, evidence.above_ms(edge_ms))], LATE_SHARE, alpha)

    first = bisect_left(edges, True, key=is_proved)
    return edges[first] if first < len(edges) else None


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} ms"
