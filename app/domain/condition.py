"""What does one condition of a gate say about the evidence?

Pass needs proof, fail needs proof of the contrary (law 5), and both by the same anytime-valid test; what
lies between is insufficient. What cannot be read is an error.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from app.domain.counters import Metric, bucket_edge_ms
from app.domain.evidence import Evidence
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

_DAY_S = 86_400.0


class GateOutcome(StrEnum):
    """Listed from good to bad."""

    PASS = "pass"  # noqa: S105 - no password
    INSUFFICIENT = "insufficient"
    FAIL = "fail"
    ERROR = "error"


def worst(outcomes: Iterable[GateOutcome]) -> GateOutcome:
    """Error over fail over insufficient over pass; of nothing, insufficient."""
    return max(outcomes, key=tuple(GateOutcome).index, default=GateOutcome.INSUFFICIENT)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, judged. `bound` is the side of the confidence bound that the limit is held against,
    `needed` the further observations at the rate seen, `eta_s` their time at the present traffic.
    """

    name: str
    outcome: GateOutcome
    sentence: str
    value: float | None = None
    bound: float | None = None
    limit: float | None = None
    n: int | None = None
    needed: int | None = None
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Validated:
    """The latest validation of a version over enough situations. `current`: over the suites as they are now."""

    n: int
    pass_rate: float
    wrong_allows: int
    current: bool


def agreement(evidence: Evidence, *, limit: float, alpha: float, per_day: float | None) -> Condition:
    """The model's raw answer is the legacy engine's in more than `limit` of the pairs."""
    n = evidence.compared
    groups = [Group(n, n - evidence.agreed)]
    outcome, more = proof(groups, 1 - limit, alpha)
    value, bound = (evidence.agreed / n, 1 - upper(groups, alpha)) if n else (None, None)
    said = f"agreement {_of(value, n)}, lower bound {rate(bound)}, needs above {rate(limit)}"
    if not evidence.independent:
        said += ", but the model is shown the legacy answer: this agreement is not independent"
        return Condition("agreement", GateOutcome.INSUFFICIENT, said, value, bound, limit, n)
    judged = Condition("agreement", outcome, said, value, bound, limit, n, more)
    return told(judged, per_day, "compared decision")


def override(evidence: Evidence, *, limit: float, alpha: float, per_day: float | None) -> Condition:
    """People override fewer than `limit` of the model's decisions, as estimated from drawn reviews."""
    n, groups = evidence.n(Metric.REVIEWED), evidence.override_groups
    return _share("override", "reviewed", groups, n, limit=limit, alpha=alpha, per_day=per_day)


def error(evidence: Evidence, *, limit: float, alpha: float, per_day: float | None) -> Condition:
    """Fewer than `limit` of the started observations time out, crash or are malformed."""
    groups = [Group(evidence.observed, evidence.errors)]
    return _share("error", "observed", groups, evidence.observed, limit=limit, alpha=alpha, per_day=per_day)


def latency(evidence: Evidence, *, limit_ms: float, alpha: float, per_day: float | None) -> Condition:
    """At most 5 % of the model's answers take longer than `limit_ms`."""
    n = evidence.n(Metric.LATENCY)
    outcome, more = proof([Group(n, evidence.above_ms(limit_ms))], LATE_SHARE, alpha)
    value, bound = evidence.percentile_ms(0.95), _latency_bound_ms(evidence, alpha)
    said = f"p95 latency {_ms(value)} of {n}, upper bound {_ms(bound)}, needs below {_ms(limit_ms)}"
    judged = Condition("latency_p95", outcome, said, value, bound, limit_ms, n, more)
    return told(judged, per_day, "observed decision")


def no_wrong_allow(evidence: Evidence) -> Condition:
    """No wrong allow is confirmed; how many were looked for is not asked, for nothing answers yet."""
    n, wrong = evidence.reviewed_allows, evidence.wrong_allows
    said = f"{wrong} wrong allows confirmed, {n} of the model's allows judged"
    outcome = GateOutcome.FAIL if wrong else GateOutcome.PASS
    return Condition("wrong_allows", outcome, said, float(wrong), None, 0.0, n)


def wrong_allows(evidence: Evidence, *, limit: float, alpha: float, per_day: float | None) -> Condition:
    """No wrong allow is confirmed, and enough of the model's allows were drawn and judged to say so."""
    bare = no_wrong_allow(evidence)
    if bare.outcome is GateOutcome.FAIL:
        return replace(bare, limit=limit)
    n = evidence.reviewed_allows
    bound = no_events_upper(n, alpha)
    more = max(no_events_needed(limit, alpha) - n, 0)
    outcome = GateOutcome.INSUFFICIENT if more else GateOutcome.PASS
    said = f"{bare.sentence}, upper bound {rate(bound)}, needs below {rate(limit)}"
    judged = Condition("wrong_allows", outcome, said, 0.0, bound, limit, n, more)
    return told(judged, per_day, "judged allow")


def soak(evidence: Evidence, *, days: float) -> Condition:
    """The epoch has been served for `days` with observations enough."""
    served = evidence.soak_days
    said = f"soak {span(served)} of {span(days)}"
    return waited("soak", said, served, days, n=len(evidence.soaked))


def reviewed(evidence: Evidence, *, at_least: int, per_day: float | None) -> Condition:
    """At least so many drawn reviews are judged."""
    n = evidence.n(Metric.REVIEWED)
    more = max(at_least - n, 0)
    outcome = GateOutcome.INSUFFICIENT if more else GateOutcome.PASS
    said = f"{n} drawn reviews judged, needs {at_least}"
    judged = Condition("reviewed", outcome, said, float(n), None, float(at_least), n, more)
    return told(judged, per_day, "reviewed decision")


def reviews_judged(evidence: Evidence, *, per_day: float | None) -> Condition:
    """Nearly all of what was drawn is judged: what lies unjudged may be what is wrong."""
    drawn, judged = evidence.n(Metric.DRAWN), evidence.n(Metric.REVIEWED)
    enough = judged >= JUDGED_AT_LEAST * drawn
    outcome = GateOutcome.PASS if enough else GateOutcome.INSUFFICIENT
    more = 0 if enough else round(JUDGED_AT_LEAST * drawn + 0.5) - judged
    said = f"{judged} of {drawn} draws judged, needs {rate(JUDGED_AT_LEAST)} of them"
    share = judged / drawn if drawn else None
    judged_of = Condition("reviews_judged", outcome, said, share, None, JUDGED_AT_LEAST, drawn, more)
    return told(judged_of, per_day, "verdict")


def validation(found: Validated | None, *, version: str, limit: float) -> Condition:
    """The version passes more than `limit` of the validation suites, as they are now.

    The suites are chosen, not drawn: their pass rate is a fact about them and has no bound.
    """
    mend = f"run `phasegate validate {version} --record`"
    if found is None:
        said = f"no validation of {version} over {VALIDATED_AT_LEAST} situations or more: {mend}"
        return Condition("validation", GateOutcome.INSUFFICIENT, said, limit=limit)
    if not found.current:
        said = f"the suites are not what {version} was last validated on: {mend}"
        return Condition("validation", GateOutcome.INSUFFICIENT, said, limit=limit)
    outcome = GateOutcome.PASS if found.pass_rate > limit else GateOutcome.FAIL
    said = f"validation {_of(found.pass_rate, found.n)}, {found.wrong_allows} wrong allows"
    said += f", needs above {rate(limit)}"
    return Condition("validation", outcome, said, found.pass_rate, None, limit, found.n)


def span(days: float) -> str:
    """A length of time as a person says it."""
    if days >= 1:
        return "1 day" if days == 1 else f"{days:.3g} days"
    hours = days * 24
    return f"{hours:.3g} h" if hours >= 1 else f"{days * _DAY_S:.3g} s"


def _share(
    name: str,
    what: str,
    groups: Sequence[Group],
    n: int,
    *,
    limit: float,
    alpha: float,
    per_day: float | None,
) -> Condition:
    """A rate of `n`, held below its limit."""
    outcome, more = proof(groups, limit, alpha)
    value, bound = (weighted_rate(groups), upper(groups, alpha)) if n else (None, None)
    said = f"{name} rate {_of(value, n)} {what}, upper bound {rate(bound)}, needs below {rate(limit)}"
    return told(Condition(name, outcome, said, value, bound, limit, n, more), per_day, f"{what} decision")


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


def told(judged: Condition, per_day: float | None, what: str) -> Condition:
    """Say how many more of `what`, in the singular, are needed, and how long they take where so many come a
    day; None: that is not known.
    """
    more = judged.needed
    if judged.outcome is not GateOutcome.INSUFFICIENT:
        return judged
    if more is None:
        return replace(judged, sentence=f"{judged.sentence}: at the rate seen no number of {what}s proves it")
    said = f"{judged.sentence}: {more} more {what}" + "s" * (more > 1)
    if per_day is None:
        return replace(judged, sentence=said)
    if not per_day:
        return replace(
            judged, sentence=f"{said}; none came in the last 24 h of the epoch, so there is no saying when"
        )
    eta_s = more / per_day * _DAY_S
    return replace(judged, eta_s=eta_s, sentence=f"{said}, about {_about(eta_s)}")


def waited(name: str, said: str, value: float, limit: float, *, n: int | None = None) -> Condition:
    left_s = max(limit - value, 0.0) * _DAY_S
    if not left_s:
        return Condition(name, GateOutcome.PASS, said, value, None, limit, n, None, 0.0)
    said += f": about {_about(left_s)} more"
    return Condition(name, GateOutcome.INSUFFICIENT, said, value, None, limit, n, None, left_s)


def _about(seconds: float) -> str:
    """A length of time in whole units, as a person estimates it."""
    for unit, length in (("day", _DAY_S), ("hour", 3_600.0), ("minute", 60.0), ("second", 1.0)):
        if seconds >= length:
            n = round(seconds / length)
            return f"{n} {unit}" + "s" * (n > 1)
    return "a second"


def rate(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _of(value: float | None, n: int) -> str:
    return f"{rate(value)} of {n}"


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} ms"
