"""Which rows of the deployment checklist hold, and how is that known?

A row compares the figure itself with its target, where there is enough to compare; only gates ask for proof.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any

from app.domain.counters import Metric
from app.domain.decision import Decision
from app.domain.evidence import Evidence
from app.domain.limits import Risk
from app.domain.period import Period
from app.domain.phase import Phase
from app.domain.sampling import ReviewMode
from app.domain.shift import total_variation
from app.learning.corrections import EXAMPLES_AT_LEAST
from app.services.reports.facts import Facts, RolloutFacts
from app.services.reports.people import by_mode, category_of, is_override
from app.services.reports.uptime import OF_MODEL, OF_PLANE

AT_LEAST = 30  # cases, for a rate to be compared with its target
REVIEW_THE_PROMPT = 0.15  # overrides above this

_CONTENT_AT_LEAST = 4.0  # of 5; the checklist names no figure
_DISK_GB, _GB = 5.0, 1e9
_TARGET_MS, _ALERT_MS = 5_000.0, 10_000.0
_SHORTEST_S = 3_600.0  # of which an uptime can be told
_EXPECTED = {
    Decision.ALLOW: (0.60, 0.70),
    Decision.REQUIRE_ATTESTATION: (0.15, 0.25),
    Decision.DENY: (0.10, 0.15),
}
_BY_RISK = {Risk.LOW: (3, 0.05), Risk.MEDIUM: (3, 0.10), Risk.HIGH: (7, 0.10), Risk.CRITICAL: (7, 0.10)}


class Outcome(StrEnum):
    MET = "met"
    UNMET = "unmet"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of the plane or, in `parts`, of one `rollout`."""

    outcome: Outcome
    sentence: str
    value: float | None = None
    rollout: str | None = None
    parts: Sequence["Finding"] = ()


def checklist(facts: Facts) -> list[dict[str, Any]]:
    """Every row in its order, JSON-ready; `source` names the call, command or counter that it comes from."""
    names = ("stage", "name", "target", "source")
    return [{**dict(zip(names, row, strict=False)), **asdict(row[-1](facts))} for row in _ROWS]


def _unknown(sentence: str, value: float | None = None) -> Finding:
    return Finding(Outcome.UNKNOWN, sentence, value)


def _found(sentence: str, value: float | None = None, *, holds: bool, n: int = AT_LEAST) -> Finding:
    """Met or not; unknown of too few cases, where cases are counted."""
    outcome = Outcome.UNKNOWN if n < AT_LEAST else Outcome.MET if holds else Outcome.UNMET
    return Finding(outcome, sentence, value)


def _rate(part: int, n: int, what: str, holds: Callable[[float], bool]) -> Finding | None:
    """A share of `n` cases; None of none."""
    return _found(f"{what} {part / n:.1%} of {n}", part / n, holds=holds(part / n), n=n) if n else None


def _each(judge: Callable[[RolloutFacts], Finding | None]) -> Callable[[Facts], Finding]:
    """Judge every rollout. Unmet where one is, else unknown where one is; those with nothing to show are left
    out and counted in the sentence.
    """

    def all_of(facts: Facts) -> Finding:
        judged = [(one.name, judge(one)) for one in facts.rollouts]
        parts = [replace(found, rollout=name) for name, found in judged if found is not None]
        if not parts:
            return _unknown("no rollout has anything to show for it")
        outcomes = {part.outcome for part in parts}
        outcome = next((o for o in (Outcome.UNMET, Outcome.UNKNOWN) if o in outcomes), Outcome.MET)
        said = "; ".join(f"{part.rollout}: {part.sentence}" for part in parts if part.outcome is outcome)
        silent = len(judged) - len(parts)
        said += f" ({silent} of {len(judged)} rollouts have nothing to show)" if silent else ""
        return Finding(outcome, said, parts[0].value if len(parts) == 1 else None, parts=parts)

    return all_of


def _preflight(_: Facts) -> Finding:
    return _unknown("a running server cannot tell: run phasegate preflight on its machine")


def _model_loads(facts: Facts) -> Finding:
    said = "is" if facts.model_ready else "is not"
    return _found(f"the default version's model {said} ready", holds=facts.model_ready)


def _decoding(facts: Facts) -> Finding:
    if not facts.settings:
        return _unknown("no version of a rollout is known here")
    said = [
        f"{version}: " + ", ".join(f"{name} {value}" for name, value in settings.items())
        for version, settings in facts.settings.items()
    ]
    steady = all(settings["temperature"] == 0 for settings in facts.settings.values())
    return _found("; ".join(said), holds=steady)


def _agreement(one: RolloutFacts, *, week: int, above: float) -> Finding | None:
    n, agreed = one.weeks[week]
    return _rate(agreed, n, "agreement", lambda share: share > above)


def _p95(seen: Evidence | None) -> Finding | None:
    p95_ms = None if seen is None else seen.percentile_ms(0.95)
    if seen is None or p95_ms is None:
        return None
    n = seen.n(Metric.LATENCY)
    return _found(f"p95 {p95_ms:.0f} ms of {n}", p95_ms, holds=p95_ms < _TARGET_MS, n=n)


def _distribution(facts: Facts) -> Finding:
    answers = facts.sums(Metric.MODEL)
    n = sum(answers.values())
    if not n:
        return _unknown("the model has given no answer in the period")
    shares = {decision: answers[decision] / n for decision in _EXPECTED}
    fits = all(low <= shares[decision] <= high for decision, (low, high) in _EXPECTED.items())
    said = ", ".join(f"{decision} {share:.0%}" for decision, share in shares.items())
    return _found(f"{said} of {n} answers", holds=fits, n=n)


def _collected(facts: Facts) -> Finding:
    found, looked = facts.disagreements["found"], facts.disagreements["looked_at"]
    judged = sum(row["llm_decision"] not in (None, row["legacy_decision"]) for row in facts.verdicts)
    said = f"{found} disagreements among the newest {looked} advisories are kept; {judged} were judged in the period"
    return Finding(Outcome.MET if looked else Outcome.UNKNOWN, said, float(found))


def _override(one: RolloutFacts) -> Finding | None:
    n, share = one.period.n(Metric.REVIEWED), one.period.override_rate
    if share is None:
        return None
    advice = ": review the prompt or add examples" if share > REVIEW_THE_PROMPT else ""
    said = f"{share:.1%} of all decisions, estimated from {n} drawn and judged{advice}"
    return _found(said, share, holds=share < 0.10, n=n)


def _categories(facts: Facts) -> Finding:
    overrides = [row for row in facts.verdicts if is_override(row)]
    if not overrides:
        return _unknown("nobody has overridden the model in the period")
    seen = Counter(category_of(row) for row in overrides)
    unsaid = sum(row["category"] is None for row in overrides)
    said = ", ".join(f"{category.replace('_', ' ')} {n}" for category, n in seen.most_common())
    said += f"; {unsaid} of {len(overrides)} by severity alone"
    return _found(said, float(len(overrides)), holds=True)


def _by_risk(one: RolloutFacts) -> Finding | None:
    if one.state.phase is not Phase.ENFORCED:
        return None
    (days, limit), served = _BY_RISK[one.policy.risk], one.now.soak_days
    n, share = one.now.n(Metric.REVIEWED), one.now.override_rate
    said = f"{one.policy.risk} risk, served {served:.1f} of {days} days in enforced"
    if share is None:
        return _unknown(f"{said}, no decision judged", served)
    said += f", overrides {share:.1%} of {n} judged, needs below {limit:.0%}"
    if share < limit and served < days:
        return _unknown(said, served)
    return _found(said, served, holds=share < limit, n=n)


def _admin(facts: Facts) -> Finding:
    critical = [one.policy for one in facts.rollouts if one.policy.risk is Risk.CRITICAL]
    loose = [policy.name for policy in critical if policy.ceiling is Phase.ENFORCED]
    said = f"{', '.join(loose)} may be enforced" if loose else "no rollout of critical risk may pass advisory"
    return _found(said, holds=not loose)


def _uptime(facts: Facts, *, of: str) -> Finding:
    served, wall_s = facts.sums(Metric.UP_S, plane=True), facts.wall_s
    if not wall_s or not served[OF_PLANE]:
        return _unknown("no guardrail pass has counted in the period")
    if wall_s < _SHORTEST_S:
        return _unknown(f"{wall_s:.0f} s are too short to say")
    share = min(served[of] / wall_s, 1.0)
    said = f"the {of} was there for {share:.2%} of {wall_s / 3600:.1f} hours"
    return _found(said, share, holds=share > 0.99)


def _alert(one: RolloutFacts) -> Finding | None:
    late, n = one.period.above_ms(_ALERT_MS), one.period.n(Metric.LATENCY)
    return _rate(late, n, "above 10 s", lambda share: share <= 0.05)


def _errors(one: RolloutFacts) -> Finding | None:
    return _rate(one.period.errors, one.period.observed, "errors", lambda share: share < 0.01)


def _shift(one: RolloutFacts) -> Finding | None:
    if one.baseline is None or one.state.phase is Phase.SHADOW:
        return None
    moved, n = total_variation(one.period.distribution, one.baseline.distribution), one.period.n(Metric.MODEL)
    if moved is None:
        return None
    return _found(f"moved by {moved:.1%} over {n} answers", moved, holds=moved <= 0.20, n=n)


def _kept(facts: Facts, *, period: Period) -> Finding:
    match facts.reports[period]:
        case None:
            return _unknown(f"no {period} report is due yet")
        case True:
            said = f"the last {period} report is kept; whether somebody read it, no server knows"
            return _found(said, holds=True)
        case False:
            return _found(f"the last {period} report is missing: see job reports in the log", holds=False)


def _corrections(one: RolloutFacts) -> Finding | None:
    n = one.now.n(Metric.OVERRIDDEN)
    if not one.now.n(Metric.REVIEWED):
        return None
    train = f": train with phasegate learn {one.name}" if n >= EXAMPLES_AT_LEAST else ""
    return _found(f"{n} corrections since the epoch began{train}", float(n), holds=not train)


def _previous(one: RolloutFacts) -> Finding | None:
    if one.previous_ready is None:
        return None
    said = "is ready" if one.previous_ready else "is not loaded"
    return _found(f"{one.state.previous} {said}", holds=one.previous_ready)


def _validation(one: RolloutFacts) -> Finding | None:
    seen = one.validated
    if seen is None:
        return None
    what, passed = f"{one.state.version} passes", round(seen.pass_rate * seen.n)
    found = _rate(passed, seen.n, what, lambda share: share > 0.95)
    if found is None or seen.current:
        return found
    return _unknown(f"{found.sentence}, but the suites have changed since", found.value)


def _time(facts: Facts) -> Finding:
    seen = by_mode(facts.verdicts)
    alone, helped = seen[ReviewMode.BLIND], seen[ReviewMode.ASSISTED]
    alone_s, helped_s = alone["median_s"], helped["median_s"]
    if not alone_s or helped_s is None:
        return _unknown("too few claimed reviews were judged in both ways")
    said = f"{helped_s:.0f} s of {helped['timed']} with it, {alone_s:.0f} s of {alone['timed']} blind"
    n, ratio = min(alone["timed"], helped["timed"]), helped_s / alone_s
    return _found(f"median from claim to verdict {said}", ratio, holds=ratio <= 0.5, n=n)


def _reasoning(facts: Facts) -> Finding:
    asked = [row["reasoned"] is not None for row in facts.verdicts if row["llm_decision"] is not None]
    if not asked:
        return _unknown("no decision of the model was judged in the period")
    said = (
        f"{sum(asked)} of {len(asked)} judged decisions have reasons kept; others are computed when asked for"
    )
    return _found(said, sum(asked) / len(asked), holds=all(asked))


def _wrong_allows(one: RolloutFacts) -> Finding | None:
    n, seen = one.period.wrong_allows, one.period.reviewed_allows
    if not one.policy.risk.is_high or not (n or seen):
        return None
    said = f"{n} confirmed; {seen} of the model's allows were drawn and judged"
    return _found(said, float(n), holds=not n)


def _satisfaction(facts: Facts) -> Finding:
    n, mean = facts.satisfaction["n"], facts.satisfaction["mean"]
    if mean is None:
        return _unknown("nobody has answered in the period")
    return _found(f"{mean:.1f} of 5 from {n} answers", mean, holds=mean >= _CONTENT_AT_LEAST, n=n)


def _resources(facts: Facts) -> Finding:
    used, left = facts.resources, facts.resources.disk_left_bytes
    resident = (used.server_bytes or 0) + (used.worker_bytes or 0)
    said = f"server and model hold {resident / _GB:.2f} of {used.memory_limit_bytes / _GB:.1f} GB of memory"
    if left is None or used.data_bytes is None:
        return _unknown(said)
    holds = left >= _DISK_GB * _GB and resident <= used.memory_limit_bytes
    said = f"{used.data_bytes / _GB:.2f} GB of data, {left / _GB:.1f} GB of disk left; {said}"
    return _found(said, holds=holds)


def _investigated(one: RolloutFacts) -> Finding | None:
    case = one.state.investigation
    if case is None:
        return None
    said = "the investigation is open" if case.is_open else f"closed: {case.cause}"
    return _found(said, holds=not case.is_open)


_WEEK_1, _WEEK_2 = partial(_agreement, week=0, above=0.80), partial(_agreement, week=1, above=0.90)
_WEEKLY, _MONTHLY = partial(_kept, period=Period.WEEKLY), partial(_kept, period=Period.MONTHLY)
_EVIDENCE = "GET /v1/rollouts/{name}/evidence"
_SHARES = "allow 60-70 %, deny 10-15 %, attestation 15-25 %"
_RISKS = "low: 3 days below 5 %; medium: 3, 10 %; high: 7, 10 %"

_Row = tuple[str, str, str, str, Callable[[Facts], Finding]]  # stage, name, target, source, judge
_ROWS: tuple[_Row, ...] = (
    ("preflight", "preflight", "every check passes", "phasegate preflight", _preflight),
    ("preflight", "model_loads", "the model loads", "GET /health", _model_loads),
    ("defaults", "decoding", "temperature 0", "GET /v1/versions", _decoding),
    ("shadow", "agreement_week_1", "> 80 %", "counter pair", _each(_WEEK_1)),
    ("shadow", "agreement_week_2", "> 90 %", "counter pair", _each(_WEEK_2)),
    ("shadow", "shadow_latency", "p95 < 5 s", "last shadow epoch", _each(lambda one: _p95(one.baseline))),
    ("shadow", "distribution", _SHARES, "counter model, all rollouts", _distribution),
    ("shadow", "disagreements_collected", "all are kept", "GET /v1/decisions?agreement=false", _collected),
    ("advisory", "override_rate", "< 10 %; > 15 %: review the prompt", _EVIDENCE, _each(_override)),
    ("advisory", "override_categories", "every override has one", "verdicts of the period", _categories),
    ("rollout", "by_risk", _RISKS, _EVIDENCE, _each(_by_risk)),
    ("rollout", "admin_stays_advisory", "critical risk is never enforced", "policies/rollouts.yaml", _admin),
    ("production", "uptime", "> 99 %", "counter up_s", partial(_uptime, of=OF_PLANE)),
    ("production", "model_uptime", "> 99 %", "counter up_s", partial(_uptime, of=OF_MODEL)),
    ("production", "latency", "p95 < 5 s", _EVIDENCE, _each(lambda one: _p95(one.period))),
    ("production", "latency_alert", "p95 < 10 s", "counter latency", _each(_alert)),
    ("production", "errors", "< 1 %", _EVIDENCE, _each(_errors)),
    ("production", "shift", "no share by more than 20 points", "counter model and baseline", _each(_shift)),
    ("improvement", "weekly_review", "the last report is kept", "GET /v1/reports", _WEEKLY),
    ("improvement", "monthly_analysis", "the last report is kept", "GET /v1/reports", _MONTHLY),
    ("improvement", "corrections", "50 or more: train", _EVIDENCE, _each(_corrections)),
    ("improvement", "previous_version", "ready, one step back", "GET /v1/versions", _each(_previous)),
    ("success", "validation", "pass rate > 95 %", "GET /v1/versions/{id}/validations", _each(_validation)),
    ("success", "time_to_decision", "halved with the advisory", "claims and verdicts of the period", _time),
    ("success", "reasoning", "every decision has reasons", "reasons kept of judged decisions", _reasoning),
    ("success", "wrong_allows", "none on high and critical risk", _EVIDENCE, _each(_wrong_allows)),
    ("success", "satisfaction", "4 of 5 (our figure)", "what reviewers answer when asked", _satisfaction),
    ("success", "resources", "5 GB of disk left, half of the memory", "data directory and /proc", _resources),
    ("rollback", "investigated", "every rollback has a root cause", "GET /v1/rollouts", _each(_investigated)),
)
