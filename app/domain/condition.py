"""What does one condition of a gate say about the evidence?

Pass needs proof, fail needs proof of the contrary (law 5), and both by the same anytime-valid test; what
lies between is insufficient. What cannot be read is an error.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from app.domain.clock import to_us
from app.domain.counters import Metric, bucket_edge_ms
from app.domain.evidence import Evidence
from app.domain.limits import Requirement
from app.domain.phase import Phase
from app.domain.rollout import Investigation, RolloutState
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
_DAY_US = 86_400_000_000


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
class OtherRollout:
    """The present state of a rollout that another one requires."""

    phase: Phase
    evidence: Evidence


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
    outcome, more = _proof(groups, 1 - limit, alpha)
    value, bound = (evidence.agreed / n, 1 - upper(groups, alpha)) if n else (None, None)
    said = f"agreement {_of(value, n)}, lower bound {_rate(bound)}, needs above {_rate(limit)}"
    if not evidence.independent:
        outcome, more = GateOutcome.INSUFFICIENT, None
        said += ", but the model is shown the legacy answer: this agreement is not independent"
    return told(Condition("agreement", outcome, said, value, bound, limit, n, more), per_day)


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
    outcome, more = _proof([Group(n, evidence.above_ms(limit_ms))], LATE_SHARE, alpha)
    value, bound = evidence.percentile_ms(0.95), _latency_bound_ms(evidence, alpha)
    said = f"p95 latency {_ms(value)} of {n}, upper bound {_ms(bound)}, needs below {_ms(limit_ms)}"
    return told(Condition("latency_p95", outcome, said, value, bound, limit_ms, n, more), per_day)


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
    said = f"{bare.sentence}, upper bound {_rate(bound)}, needs below {_rate(limit)}"
    return told(Condition("wrong_allows", outcome, said, 0.0, bound, limit, n, more), per_day)


def soak(evidence: Evidence, *, days: float) -> Condition:
    """The epoch has been served for `days` with observations enough."""
    served = evidence.soak_days
    said = f"soak {span(served)} of {span(days)}"
    return _waited("soak", said, served, days, n=len(evidence.soaked))


def reviewed(evidence: Evidence, *, at_least: int, per_day: float | None) -> Condition:
    """At least so many drawn reviews are judged."""
    n = evidence.n(Metric.REVIEWED)
    more = max(at_least - n, 0)
    outcome = GateOutcome.INSUFFICIENT if more else GateOutcome.PASS
    said = f"{n} drawn reviews judged, needs {at_least}"
    return told(Condition("reviewed", outcome, said, float(n), None, float(at_least), n, more), per_day)


def reviews_judged(evidence: Evidence, *, per_day: float | None) -> Condition:
    """Nearly all of what was drawn is judged: what lies unjudged may be what is wrong."""
    drawn, judged = evidence.n(Metric.DRAWN), evidence.n(Metric.REVIEWED)
    enough = judged >= JUDGED_AT_LEAST * drawn
    outcome = GateOutcome.PASS if enough else GateOutcome.INSUFFICIENT
    more = 0 if enough else round(JUDGED_AT_LEAST * drawn + 0.5) - judged
    said = f"{judged} of {drawn} draws judged, needs {_rate(JUDGED_AT_LEAST)} of them"
    share = judged / drawn if drawn else None
    return told(
        Condition("reviews_judged", outcome, said, share, None, JUDGED_AT_LEAST, drawn, more), per_day
    )


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
    said += f", needs above {_rate(limit)}"
    return Condition("validation", outcome, said, found.pass_rate, None, limit, found.n)


def investigation(case: Investigation, *, observed_days: float, days: float) -> Condition:
    """The last rollback is explained, and the version has been observed for `days` since."""
    if case.is_open:
        return Condition("investigation", GateOutcome.FAIL, f"investigation {case.id} is open")
    said = f"{span(observed_days)} of {span(days)} observed since investigation {case.id} closed"
    return _waited("investigation", said, observed_days, days)


def held(state: RolloutState) -> Condition:
    if state.held:
        return Condition("held", GateOutcome.FAIL, f"held: {state.hold_reason or 'no reason given'}")
    return Condition("held", GateOutcome.PASS, "not held")


def kill_switch(*, engaged: bool) -> Condition:
    if engaged:
        return Condition("kill_switch", GateOutcome.FAIL, "the kill switch is engaged")
    return Condition("kill_switch", GateOutcome.PASS, "the kill switch is released")


def clock(jump_us: int | None, *, epoch_started_at: datetime, now: datetime) -> Condition:
    """Times are worth nothing where the clock has jumped, in this epoch or within a day."""
    since = min(to_us(epoch_started_at), to_us(now) - _DAY_US)
    if jump_us is not None and jump_us >= since:
        said = "the clock jumped by more than 60 s: times of this epoch cannot be trusted"
        return Condition("clock", GateOutcome.ERROR, said)
    return Condition("clock", GateOutcome.PASS, "the clock is steady")


def required(requirement: Requirement, other: OtherRollout | None, *, alpha: float) -> Condition:
    """Another rollout has been enforced for long enough, and people do not override it too often."""
    name, days = f"requires:{requirement.rollout}", requirement.enforced_days
    if other is None or other.evidence.problem:
        return Condition(name, GateOutcome.ERROR, f"{requirement.rollout} cannot be read")
    if other.phase is not Phase.ENFORCED:
        said = f"{requirement.rollout} is in {other.phase}, needs {span(days)} enforced"
        return Condition(name, GateOutcome.INSUFFICIENT, said, limit=days)
    served = other.evidence.soak_days
    condition = _waited(name, f"{requirement.rollout} enforced {span(served)} of {span(days)}", served, days)
    if requirement.override_below is None or condition.outcome is not GateOutcome.PASS:
        return condition
    judged = override(other.evidence, limit=requirement.override_below, alpha=alpha, per_day=None)
    said = f"{condition.sentence}; its {judged.sentence}"
    return Condition(name, judged.outcome, said, judged.value, judged.bound, judged.limit, judged.n)


def span(days: float) -> str:
    """A length of time as a person says it."""
    if days >= 1:
        return f"{days:.3g} days"
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
    outcome, more = _proof(groups, limit, alpha)
    value, bound = (weighted_rate(groups), upper(groups, alpha)) if n else (None, None)
    said = f"{name} rate {_of(value, n)} {what}, upper bound {_rate(bound)}, needs below {_rate(limit)}"
    return told(Condition(name, outcome, said, value, bound, limit, n, more), per_day)


def _proof(groups: Sequence[Group], limit: float, alpha: float) -> tuple[GateOutcome, int | None]:
    """The outcome, and how many more observations it takes where it is insufficient."""
    if below(groups, limit, alpha):
        return GateOutcome.PASS, 0
    if above(groups, limit, alpha):
        return GateOutcome.FAIL, None
    return GateOutcome.INSUFFICIENT, needed(groups, limit, alpha)


def _latency_bound_ms(evidence: Evidence, alpha: float) -> float | None:
    """The smallest bucket edge that the p95 is proved to be below."""
    buckets = sorted(int(label) for label in evidence.of(Metric.LATENCY))
    n = evidence.n(Metric.LATENCY)
    for bucket in buckets:
        late = evidence.above_ms(bucket_edge_ms(bucket))
        if below([Group(n, late)], LATE_SHARE, alpha):
            return bucket_edge_ms(bucket)
    return None


def told(judged: Condition, per_day: float | None) -> Condition:
    """Say what is still needed, and how long that takes at the present traffic of so many a day."""
    more = judged.needed
    if more is None:
        return judged
    eta_s = more / per_day * _DAY_S if per_day else None
    if judged.outcome is not GateOutcome.INSUFFICIENT:
        return replace(judged, eta_s=eta_s)
    return replace(judged, eta_s=eta_s, sentence=f"{judged.sentence}: about {more} more")


def _waited(name: str, said: str, value: float, limit: float, *, n: int | None = None) -> Condition:
    left_s = max(limit - value, 0.0) * _DAY_S
    outcome = GateOutcome.INSUFFICIENT if left_s else GateOutcome.PASS
    return Condition(name, outcome, said, value, None, limit, n, None, left_s)


def _rate(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _of(value: float | None, n: int) -> str:
    return f"{_rate(value)} of {n}"


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} ms"
