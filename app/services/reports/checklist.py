"""Which rows of the deployment checklist (EVIDENCE.md 1) hold, and how is that known?

A row compares the figure itself with its target, where there is enough to compare; only gates ask for proof.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from app.domain.counters import Metric
from app.domain.decision import Decision
from app.domain.limits import Risk
from app.domain.period import Period
from app.domain.phase import Phase
from app.domain.sampling import ReviewMode
from app.domain.shift import total_variation
from app.learning.corrections import EXAMPLES_AT_LEAST
from app.services.reports.facts import Facts, RolloutFacts
from app.services.reports.finding import Finding, Outcome, each, enough, is_met, rate
from app.services.reports.next_step import REVIEW_THE_PROMPT
from app.services.reports.people import category_of, decision_times, is_override
from app.services.reports.uptime import OF_MODEL, OF_PLANE

CONTENT_AT_LEAST = 4.0  # of 5; the checklist names no figure
DISK_GB = 5.0
TARGET_MS, ALERT_MS = 5_000.0, 10_000.0

_GB = 1e9
_SHORTEST_S = 3_600.0  # of which an uptime can be told
_EXPECTED = {
    Decision.ALLOW: (0.60, 0.70),
    Decision.REQUIRE_ATTESTATION: (0.15, 0.25),
    Decision.DENY: (0.10, 0.15),
}
_BY_RISK = {Risk.LOW: (3, 0.05), Risk.MEDIUM: (3, 0.10), Risk.HIGH: (7, 0.10), Risk.CRITICAL: (7, 0.10)}


def checklist(facts: Facts) -> list[dict[str, Any]]:
    """Every row in its order, JSON-ready; `source` names the call, command or counter that it comes from."""
    names = ("stage", "name", "target", "source")
    return [{**dict(zip(names, row, strict=False)), **asdict(row[-1](facts))} for row in _ROWS]


def _preflight(_: Facts) -> Finding:
    said = "a running server cannot tell: run `phasegate preflight` on its machine"
    return Finding(Outcome.UNKNOWN, said)


def _model_loads(facts: Facts) -> Finding:
    said = "is" if facts.model_ready else "is not"
    return Finding(is_met(facts.model_ready), f"the default version's model {said} ready")


def _decoding(facts: Facts) -> Finding:
    if not facts.settings:
        return Finding(Outcome.UNKNOWN, "no version of a rollout is known here")
    said = [
        f"{version}: " + ", ".join(f"{name} {value}" for name, value in settings.items())
        for version, settings in facts.settings.items()
    ]
    steady = all(settings["temperature"] == 0 for settings in facts.settings.values())
    return Finding(is_met(steady), "; ".join(said))


def _agreement(one: RolloutFacts, *, week: int, above: float) -> Finding | None:
    n, agreed = one.weeks[week]
    return rate(agreed, n, lambda share: share > above, "agreement")


def _baseline_latency(one: RolloutFacts) -> Finding | None:
    return (
        None
        if one.baseline is None
        else _p95(one.baseline.percentile_ms(0.95), one.baseline.n(Metric.LATENCY))
    )


def _latency(one: RolloutFacts) -> Finding | None:
    return _p95(one.period.percentile_ms(0.95), one.period.n(Metric.LATENCY))


def _p95(p95_ms: float | None, n: int) -> Finding | None:
    if p95_ms is None:
        return None
    return Finding(enough(n, holds=p95_ms < TARGET_MS), f"p95 {p95_ms:.0f} ms of {n}", p95_ms)


def _distribution(facts: Facts) -> Finding:
    answers = facts.sums(Metric.MODEL)
    n = sum(answers.values())
    if not n:
        return Finding(Outcome.UNKNOWN, "the model has given no answer in the period")
    shares = {decision: answers[decision] / n for decision in _EXPECTED}
    fits = all(low <= shares[decision] <= high for decision, (low, high) in _EXPECTED.items())
    said = ", ".join(f"{decision} {share:.0%}" for decision, share in shares.items())
    return Finding(enough(n, holds=fits), f"{said} of {n} answers")


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
    return Finding(enough(n, holds=share < 0.10), said, share)


def _categories(facts: Facts) -> Finding:
    overrides = [row for row in facts.verdicts if is_override(row)]
    if not overrides:
        return Finding(Outcome.UNKNOWN, "nobody has overridden the model in the period")
    seen = Counter(category_of(row) for row in overrides)
    unsaid = sum(row["category"] is None for row in overrides)
    said = ", ".join(f"{category.replace('_', ' ')} {n}" for category, n in seen.most_common())
    return Finding(
        Outcome.MET, f"{said}; {unsaid} of {len(overrides)} by severity alone", float(len(overrides))
    )


def _by_risk(one: RolloutFacts) -> Finding | None:
    if one.state.phase is not Phase.ENFORCED:
        return None
    (days, limit), served = _BY_RISK[one.policy.risk], one.now.soak_days
    n, share = one.now.n(Metric.REVIEWED), one.now.override_rate
    said = f"{one.policy.risk} risk, served {served:.1f} of {days} days in enforced"
    if share is None:
        return Finding(Outcome.UNKNOWN, f"{said}, no decision judged", served)
    said += f", overrides {share:.1%} of {n} judged, needs below {limit:.0%}"
    outcome = enough(n, holds=share < limit)
    too_early = outcome is Outcome.MET and served < days
    return Finding(Outcome.UNKNOWN if too_early else outcome, said, served)


def _admin(facts: Facts) -> Finding:
    critical = [one.policy for one in facts.rollouts if one.policy.risk is Risk.CRITICAL]
    loose = [policy.name for policy in critical if policy.ceiling is Phase.ENFORCED]
    said = f"{', '.join(loose)} may be enforced" if loose else "no rollout of critical risk may pass advisory"
    return Finding(is_met(not loose), said)


def _uptime(facts: Facts, *, of: str) -> Finding:
    served, wall_s = facts.sums(Metric.UP_S, plane=True), facts.wall_s
    if not wall_s or not served[OF_PLANE]:
        return Finding(Outcome.UNKNOWN, "no guardrail pass has counted in the period")
    if wall_s < _SHORTEST_S:
        return Finding(Outcome.UNKNOWN, f"{wall_s:.0f} s are too short to say")
    share = min(served[of] / wall_s, 1.0)
    return Finding(
        is_met(share > 0.99), f"the {of} was there for {share:.2%} of {wall_s / 3600:.1f} hours", share
    )


def _alert(one: RolloutFacts) -> Finding | None:
    late, n = one.period.above_ms(ALERT_MS), one.period.n(Metric.LATENCY)
    return rate(late, n, lambda share: share <= 0.05, "above 10 s")


def _errors(one: RolloutFacts) -> Finding | None:
    return rate(one.period.errors, one.period.observed, lambda share: share < 0.01, "errors")


def _shift(one: RolloutFacts) -> Finding | None:
    if one.baseline is None or one.state.phase is Phase.SHADOW:
        return None
    moved, n = total_variation(one.period.distribution, one.baseline.distribution), one.period.n(Metric.MODEL)
    if moved is None:
        return None
    return Finding(enough(n, holds=moved <= 0.20), f"moved by {moved:.1%} over {n} answers", moved)


def _kept(facts: Facts, *, period: Period) -> Finding:
    match facts.reports[period]:
        case True:
            said = f"the last {period} report is kept; whether somebody read it, no server knows"
            return Finding(Outcome.MET, said)
        case False:
            return Finding(Outcome.UNMET, f"the last {period} report is missing: see job reports in the log")
        case _:
            return Finding(Outcome.UNKNOWN, f"no {period} report is due yet")


def _corrections(one: RolloutFacts) -> Finding | None:
    n = one.now.n(Metric.OVERRIDDEN)
    if not one.now.n(Metric.REVIEWED):
        return None
    train = f": train with `phasegate learn {one.name}`" if n >= EXAMPLES_AT_LEAST else ""
    return Finding(is_met(not train), f"{n} corrections since the epoch began{train}", float(n))


def _previous(one: RolloutFacts) -> Finding | None:
    if one.previous_ready is None:
        return None
    said = "is ready" if one.previous_ready else "is not loaded"
    return Finding(is_met(one.previous_ready), f"{one.state.previous} {said}")


def _validation(one: RolloutFacts) -> Finding | None:
    if one.validated is None:
        return None
    found = rate(
        round(one.validated.pass_rate * one.validated.n),
        one.validated.n,
        lambda share: share > 0.95,
        f"{one.state.version} passes",
    )
    return (
        found
        if one.validated.current or found is None
        else Finding(Outcome.UNKNOWN, f"{found.sentence}, but the suites have changed since", found.value)
    )


def _time(facts: Facts) -> Finding:
    times = decision_times(facts.verdicts)
    alone, helped = times[ReviewMode.BLIND], times[ReviewMode.ASSISTED]
    if not alone.median_s or helped.median_s is None:
        return Finding(Outcome.UNKNOWN, "too few claimed reviews were judged in both ways")
    ratio = helped.median_s / alone.median_s
    said = f"median from claim to verdict {helped.median_s:.0f} s of {helped.n} with it, {alone.median_s:.0f} s of {alone.n} blind"
    return Finding(enough(min(alone.n, helped.n), holds=ratio <= 0.5), said, ratio)


def _reasoning(facts: Facts) -> Finding:
    asked = [row["reasoned"] is not None for row in facts.verdicts if row["llm_decision"] is not None]
    if not asked:
        return Finding(Outcome.UNKNOWN, "no decision of the model was judged in the period")
    said = (
        f"{sum(asked)} of {len(asked)} judged decisions have reasons kept; others are computed when asked for"
    )
    return Finding(is_met(all(asked)), said, sum(asked) / len(asked))


def _wrong_allows(one: RolloutFacts) -> Finding | None:
    n, seen = one.period.wrong_allows, one.period.reviewed_allows
    if not one.policy.risk.is_high or not (n or seen):
        return None
    said = f"{n} confirmed; {seen} of the model's allows were drawn and judged"
    return Finding(is_met(not n), said, float(n))


def _satisfaction(facts: Facts) -> Finding:
    n, mean = facts.satisfaction["n"], facts.satisfaction["mean"]
    if mean is None:
        return Finding(Outcome.UNKNOWN, "nobody has answered in the period")
    return Finding(is_met(mean >= CONTENT_AT_LEAST), f"{mean:.1f} of 5 from {n} answers", mean)


def _resources(facts: Facts) -> Finding:
    used, left = facts.resources, facts.resources.disk_left_bytes
    resident = (used.server_bytes or 0) + (used.worker_bytes or 0)
    said = f"server and model hold {resident / _GB:.2f} of {used.memory_limit_bytes / _GB:.1f} GB of memory"
    if left is None or used.data_bytes is None:
        return Finding(Outcome.UNKNOWN, said)
    holds = left >= DISK_GB * _GB and resident <= used.memory_limit_bytes
    return Finding(
        is_met(holds), f"{used.data_bytes / _GB:.2f} GB of data, {left / _GB:.1f} GB of disk left; {said}"
    )


def _investigated(one: RolloutFacts) -> Finding | None:
    case = one.state.investigation
    if case is None:
        return None
    return Finding(
        is_met(not case.is_open), "the investigation is open" if case.is_open else f"closed: {case.cause}"
    )


_EVIDENCE = "GET /v1/rollouts/{name}/evidence"
_SHARES = "allow 60-70 %, deny 10-15 %, attestation 15-25 %"
_RISKS = "low: 3 days below 5 %; medium: 3, 10 %; high: 7, 10 %"

_Row = tuple[str, str, str, str, Callable[[Facts], Finding]]  # stage, name, target, source, judge
_ROWS: tuple[_Row, ...] = (
    ("preflight", "preflight", "every check passes", "phasegate preflight", _preflight),
    ("preflight", "model_loads", "the model loads", "GET /health", _model_loads),
    ("defaults", "decoding", "temperature 0", "GET /v1/versions", _decoding),
    ("shadow", "agreement_week_1", "> 80 %", "counter pair", each(partial(_agreement, week=0, above=0.80))),
    ("shadow", "agreement_week_2", "> 90 %", "counter pair", each(partial(_agreement, week=1, above=0.90))),
    ("shadow", "shadow_latency", "p95 < 5 s", "counter latency, last shadow epoch", each(_baseline_latency)),
    ("shadow", "distribution", _SHARES, "counter model, all rollouts", _distribution),
    ("shadow", "disagreements_collected", "all are kept", "GET /v1/decisions?agreement=false", _collected),
    ("advisory", "override_rate", "< 10 %; > 15 %: review the prompt", _EVIDENCE, each(_override)),
    ("advisory", "override_categories", "every override has one", "verdicts of the period", _categories),
    ("rollout", "by_risk", _RISKS, _EVIDENCE, each(_by_risk)),
    ("rollout", "admin_stays_advisory", "critical risk is never enforced", "policies/rollouts.yaml", _admin),
    ("production", "uptime", "> 99 %", "counter up_s", partial(_uptime, of=OF_PLANE)),
    ("production", "model_uptime", "> 99 %", "counter up_s", partial(_uptime, of=OF_MODEL)),
    ("production", "latency", "p95 < 5 s", _EVIDENCE, each(_latency)),
    ("production", "latency_alert", "p95 < 10 s", "counter latency", each(_alert)),
    ("production", "errors", "< 1 %", _EVIDENCE, each(_errors)),
    (
        "production",
        "shift",
        "no share by more than 20 points",
        "counter model against the baseline",
        each(_shift),
    ),
    (
        "improvement",
        "weekly_review",
        "the last report is kept",
        "GET /v1/reports",
        partial(_kept, period=Period.WEEKLY),
    ),
    (
        "improvement",
        "monthly_analysis",
        "the last report is kept",
        "GET /v1/reports",
        partial(_kept, period=Period.MONTHLY),
    ),
    ("improvement", "corrections", "50 or more: train", _EVIDENCE, each(_corrections)),
    ("improvement", "previous_version", "ready, one step back", "GET /v1/versions", each(_previous)),
    ("success", "validation", "pass rate > 95 %", "GET /v1/versions/{id}/validations", each(_validation)),
    ("success", "time_to_decision", "halved with the advisory", "claims and verdicts of the period", _time),
    ("success", "reasoning", "every decision has reasons", "reasons kept of judged decisions", _reasoning),
    ("success", "wrong_allows", "none on high and critical risk", _EVIDENCE, each(_wrong_allows)),
    ("success", "satisfaction", "4 of 5 (our figure)", "what reviewers answer when asked", _satisfaction),
    ("success", "resources", "5 GB of disk left, half of the memory", "data directory and /proc", _resources),
    ("rollback", "investigated", "every rollback has a root cause", "GET /v1/rollouts", each(_investigated)),
)
