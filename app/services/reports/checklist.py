"""Which rows of the deployment checklist (EVIDENCE.md 1) hold, and how is that known?

A row compares the figure itself with its target, where there is enough to compare; only gates ask for proof.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from app.domain.counters import Metric
from app.domain.decision import Category, Decision
from app.domain.limits import Risk
from app.domain.period import Period
from app.domain.phase import Phase
from app.domain.sampling import ReviewMode
from app.domain.shift import total_variation
from app.learning.corrections import EXAMPLES_AT_LEAST
from app.services.reports.facts import Facts, RolloutFacts
from app.services.reports.people import decision_times, is_override
from app.services.reports.uptime import OF_MODEL, OF_PLANE

AT_LEAST = 30  # cases, for a rate to be compared with its target
CONTENT_AT_LEAST = 4.0  # of 5; the checklist names no figure
DISK_GB = 5.0
TARGET_MS, ALERT_MS = 5_000.0, 10_000.0

_GB = 1e9
_EXPECTED = {Decision.ALLOW: (0.60, 0.70), Decision.DENY: (0.10, 0.15), Decision.REQUIRE_ATTESTATION: (0.15, 0.25)}
_BY_RISK = {Risk.LOW: (3, 0.05), Risk.MEDIUM: (3, 0.10), Risk.HIGH: (7, 0.10), Risk.CRITICAL: (7, 0.10)}
_EVIDENCE = "GET /v1/rollouts/{name}/evidence"


class Outcome(StrEnum):
    MET = "met"
    UNMET = "unmet"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Part:
    """What one rollout says to a row."""

    rollout: str
    outcome: Outcome
    value: float | None
    n: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Row:
    """One requirement. `source` names the call, command or counter that the value comes from."""

    stage: str
    name: str
    target: str
    source: str
    outcome: Outcome
    sentence: str
    value: float | None = None
    parts: Sequence[Part] = field(default=())


def checklist(facts: Facts) -> list[Row]:
    """Every row, in the order of the checklist."""
    return [
        *_before(facts),
        *_shadow(facts),
        *_advisory(facts),
        *_rollout(facts),
        *_production(facts),
        *_improvement(facts),
        *_success(facts),
        *_after(facts),
    ]


def _before(facts: Facts) -> Iterator[Row]:
    yield Row(
        "preflight", "preflight", "every check passes", "phasegate preflight", Outcome.UNKNOWN,
        "a running server cannot tell: run `phasegate preflight` on its machine",
    )  # fmt: skip
    loaded = "has loaded and answered" if facts.model_loaded else "has not loaded since the start"
    yield Row(
        "preflight", "model_loads", "the model loads", "GET /health", _is(facts.model_loaded),
        f"the default version's model {loaded}",
    )  # fmt: skip
    hot = [name for name, settings in facts.settings.items() if settings["temperature"] != 0]
    told = "; ".join(
        f"{name}: n_ctx {said['n_ctx']}, max_tokens {said['max_tokens']}, temperature {said['temperature']}"
        for name, said in facts.settings.items()
    )
    yield Row(
        "defaults", "decoding", "temperature 0; n_ctx 8192 and max_tokens 512 unless the version says why",
        "GET /v1/versions", _is(not hot) if facts.settings else Outcome.UNKNOWN,
        told or "no version of a rollout is known here",
    )  # fmt: skip


def _shadow(facts: Facts) -> Iterator[Row]:
    for week, limit in enumerate((0.80, 0.90)):

        def agreement(one: RolloutFacts, week: int = week, limit: float = limit) -> Part | None:
            n, agreed = one.weeks[week]
            return _rate(one, agreed, n, lambda rate: rate > limit, "agreement")

        yield _by_rollout(
            facts, "shadow", f"agreement_week_{week + 1}", f"above {limit:.0%}", "counter pair", agreement
        )

    def slow(one: RolloutFacts) -> Part | None:
        return None if one.baseline is None else _p95(one, one.baseline.percentile_ms(0.95), one.baseline.n(Metric.LATENCY))

    yield _by_rollout(facts, "shadow", "latency", "p95 below 5 s", "counter latency of the last shadow epoch", slow)
    yield _distribution(facts)
    found, looked = facts.disagreements["found"], facts.disagreements["looked_at"]
    judged = sum(row["llm_decision"] not in (None, row["legacy_decision"]) for row in facts.verdicts)
    yield Row(
        "shadow", "disagreements_collected", "every disagreement is kept for review", "GET /v1/decisions?agreement=false",
        Outcome.MET if looked else Outcome.UNKNOWN,
        f"{found} disagreements among the newest {looked} advisories are in the ledger, {judged} were judged in the period",
        float(found),
    )  # fmt: skip


def _distribution(facts: Facts) -> Row:
    answers = facts.sums(Metric.MODEL)
    n = sum(answers.values())
    shares = {decision: answers[decision] / n for decision in _EXPECTED} if n else {}
    off = [d for d, share in shares.items() if not _EXPECTED[d][0] <= share <= _EXPECTED[d][1]]
    told = ", ".join(f"{decision} {share:.0%}" for decision, share in shares.items())
    return Row(
        "shadow", "distribution", "allow 60-70 %, deny 10-15 %, require_attestation 15-25 %", "counter model, all rollouts",
        Outcome.UNKNOWN if n < AT_LEAST else _is(not off),
        f"{told} of {n} answers" if n else "the model has given no answer in the period",
    )  # fmt: skip


def _advisory(facts: Facts) -> Iterator[Row]:
    def override(one: RolloutFacts) -> Part | None:
        n, rate = one.period.n(Metric.REVIEWED), one.period.override_rate
        if not n or rate is None:
            return None
        advice = ": review the prompt or add examples" if rate > 0.15 else ""
        said = f"{rate:.1%} of all decisions, estimated from {n} drawn and judged{advice}"
        return Part(one.name, _enough(n, ok=rate < 0.10), rate, n, said)

    yield _by_rollout(facts, "advisory", "override_rate", "below 10 %; above 15 %: review the prompt", _EVIDENCE, override)
    overrides = [row for row in facts.verdicts if is_override(row)]
    counts = {
        category: sum(row["category"] == category for row in overrides)
        for category in (Category.MODEL_TOO_STRICT, Category.MODEL_TOO_PERMISSIVE, Category.UNCLEAR)
    }
    without = len(overrides) - sum(counts.values())
    told = ", ".join(f"{category} {n}" for category, n in counts.items())
    yield Row(
        "advisory", "override_categories", "every override has a category", "verdicts of the period",
        _is(not without) if overrides else Outcome.UNKNOWN,
        f"{len(overrides)} overrides: {told}, without one {without}", float(len(overrides)),
    )  # fmt: skip


def _rollout(facts: Facts) -> Iterator[Row]:
    def by_risk(one: RolloutFacts) -> Part | None:
        if one.state.phase is not Phase.ENFORCED:
            return None
        (days, limit), served, rate = _BY_RISK[one.policy.risk], one.now.soak_days, one.now.override_rate
        said = f"{one.policy.risk} risk, enforced and served {served:.1f} of {days} days"
        if rate is None:
            return Part(one.name, Outcome.UNKNOWN, served, 0, f"{said}; no decision was judged")
        n = one.now.n(Metric.REVIEWED)
        said += f"; overrides {rate:.1%} of {n} judged, needs below {limit:.0%}"
        outcome = Outcome.UNKNOWN if served < days else _enough(n, ok=rate < limit)
        return Part(one.name, Outcome.UNMET if n >= AT_LEAST and rate >= limit else outcome, served, n, said)

    yield _by_rollout(
        facts, "rollout", "by_risk", "low 3 days below 5 %, medium 3 below 10 %, high 7 below 10 %", _EVIDENCE, by_risk
    )
    loose = [one.name for one in facts.rollouts if one.policy.risk is Risk.CRITICAL and one.policy.ceiling is Phase.ENFORCED]
    yield Row(
        "rollout", "admin_stays_advisory", "critical risk is never enforced", "policies/rollouts.yaml", _is(not loose),
        f"{', '.join(loose)} may be enforced" if loose else "no rollout of critical risk may pass advisory",
    )  # fmt: skip


def _production(facts: Facts) -> Iterator[Row]:
    served, wall_s = facts.sums(Metric.UP_S, plane=True), facts.wall_s
    for name, label in (("uptime", OF_PLANE), ("model_uptime", OF_MODEL)):
        share = min(served[label] / wall_s, 1.0) if wall_s > 0 and served[OF_PLANE] else None
        said = f"{share:.2%} of {wall_s / 3600:.1f} hours" if share is not None else "no guardrail pass has counted"
        yield Row(
            "production", name, "above 99 %", "counter up_s, by the leader's guardrail passes",
            Outcome.UNKNOWN if share is None else _is(share > 0.99), f"the {label} was there for {said}", share,
        )  # fmt: skip
    yield _by_rollout(
        facts, "production", "latency", "p95 below 5 s", _EVIDENCE,
        lambda one: _p95(one, one.period.percentile_ms(0.95), one.period.n(Metric.LATENCY)),
    )  # fmt: skip
    yield _by_rollout(
        facts, "production", "latency_alert", "no more than 5 % above 10 s", "GET /v1/rollouts/{name}/guardrails",
        lambda one: _rate(
            one, one.period.above_ms(ALERT_MS), one.period.n(Metric.LATENCY), lambda rate: rate <= 0.05, "above 10 s"
        ),
    )  # fmt: skip
    yield _by_rollout(
        facts, "production", "errors", "below 1 %", _EVIDENCE,
        lambda one: _rate(one, one.period.errors, one.period.observed, lambda rate: rate < 0.01, "errors"),
    )  # fmt: skip
    yield _by_rollout(
        facts, "production", "shift", "no share moves by more than 20 points", "counter model against the shadow baseline", _shift
    )


def _shift(one: RolloutFacts) -> Part | None:
    moved = None if one.baseline is None else total_variation(one.period.distribution, one.baseline.distribution)
    if moved is None or one.state.phase is Phase.SHADOW:
        return None
    n = one.period.n(Metric.MODEL)
    return Part(one.name, _enough(n, ok=moved <= 0.20), moved, n, f"moved by {moved:.1%} over {n} answers")


def _improvement(facts: Facts) -> Iterator[Row]:
    for name, period in (("weekly_review", Period.WEEKLY), ("monthly_analysis", Period.MONTHLY)):
        there = facts.reports[period]
        yield Row(
            "improvement", name, f"the last complete {period} report is stored", "GET /v1/reports",
            _is(there) if there or _is_old(facts, period) else Outcome.UNKNOWN,
            f"the last {period} report is {'stored' if there else 'not there'}; whether somebody read it, no server knows",
        )  # fmt: skip

    def corrections(one: RolloutFacts) -> Part | None:
        n = one.now.n(Metric.OVERRIDDEN)
        if not one.now.n(Metric.REVIEWED):
            return None
        train = f": train with `phasegate learn {one.name}`" if n >= EXAMPLES_AT_LEAST else ""
        return Part(one.name, _is(not train), float(n), n, f"{n} corrections since the epoch began{train}")

    yield _by_rollout(facts, "improvement", "corrections", "50 or more: train", _EVIDENCE, corrections)

    def previous(one: RolloutFacts) -> Part | None:
        if one.previous_ready is None:
            return None
        said = f"{one.state.previous} {'is ready' if one.previous_ready else 'is not loaded'}"
        return Part(one.name, _is(one.previous_ready), None, None, said)

    yield _by_rollout(facts, "improvement", "previous_version", "ready, one step back", "GET /v1/versions", previous)


def _success(facts: Facts) -> Iterator[Row]:
    def passed(one: RolloutFacts) -> Part | None:
        if one.validated is None:
            return None
        rate, n = one.validated.pass_rate, one.validated.n
        old = "" if one.validated.current else ", over suites that have changed since"
        return Part(one.name, _enough(n, ok=rate > 0.95), rate, n, f"{one.state.version}: {rate:.1%} of {n}{old}")

    yield _by_rollout(facts, "success", "validation", "pass rate above 95 %", "GET /v1/versions/{id}/validations", passed)
    times = decision_times(facts.verdicts)
    alone, helped = (times[mode] for mode in (ReviewMode.BLIND, ReviewMode.ASSISTED))
    told = ", ".join(f"{mode} {said.median_s:.0f} s of {said.n}" for mode, said in times.items() if said.median_s is not None)
    ratio = helped.median_s / alone.median_s if helped.median_s is not None and alone.median_s else None
    known = ratio is not None and min(alone.n, helped.n) >= AT_LEAST
    yield Row(
        "success", "time_to_decision", "halved with the advisory", "claims and verdicts of the period",
        _is(ratio is not None and ratio <= 0.5) if known else Outcome.UNKNOWN,
        f"median from claim to verdict: {told}" if told else "no claimed review was judged", ratio,
    )  # fmt: skip
    asked = [row for row in facts.verdicts if row["llm_decision"] is not None]
    reasoned = sum(row["reasoned"] is not None for row in asked)
    share = reasoned / len(asked) if asked else None
    yield Row(
        "success", "reasoning", "every decision has its reasons", "reasonings of the decisions judged in the period",
        Outcome.UNKNOWN if share is None else _is(share == 1.0),
        f"{reasoned} of {len(asked)} judged decisions have reasons kept; others are computed when somebody asks", share,
    )  # fmt: skip

    def wrong(one: RolloutFacts) -> Part | None:
        n, seen = one.period.wrong_allows, one.period.reviewed_allows
        if not one.policy.risk.is_high or not (n or seen):
            return None
        return Part(one.name, _is(not n), float(n), seen, f"{n} confirmed; {seen} of the model's allows were drawn and judged")

    yield _by_rollout(facts, "success", "wrong_allows", "none on high and critical risk", _EVIDENCE, wrong)
    n, mean = facts.contentment
    yield Row(
        "success", "satisfaction", f"at least {CONTENT_AT_LEAST:g} of 5 (ours: the checklist names none)", "what reviewers answer when asked",
        Outcome.UNKNOWN if mean is None else _is(mean >= CONTENT_AT_LEAST),
        f"{mean:.1f} of 5 from {n} answers" if mean is not None else "nobody has been asked in the period", mean,
    )  # fmt: skip
    yield _resources(facts)


def _resources(facts: Facts) -> Row:
    used, left = facts.resources, facts.resources.disk_left_bytes
    resident = (used.server_bytes or 0) + (used.worker_bytes or 0)
    ok = left is not None and left >= DISK_GB * _GB and resident <= used.memory_limit_bytes
    disk = f"data {(used.data_bytes or 0) / _GB:.2f} GB, {left / _GB:.1f} GB of disk left" if left is not None else "disk unknown"
    return Row(
        "success", "resources", "5 GB of disk left, server and model in half of the memory", "data directory and /proc, now",
        Outcome.UNKNOWN if left is None else _is(ok),
        f"{disk}; server and model hold {resident / _GB:.2f} of {used.memory_limit_bytes / _GB:.1f} GB of memory",
    )  # fmt: skip


def _after(facts: Facts) -> Iterator[Row]:
    def investigated(one: RolloutFacts) -> Part | None:
        case = one.state.investigation
        if case is None:
            return None
        said = "is open: find the root cause" if case.is_open else f"closed: {case.cause}"
        return Part(one.name, _is(not case.is_open), None, None, f"investigation {said}")

    yield _by_rollout(
        facts, "rollback", "investigated", "every rollback has a root cause", "GET /v1/rollouts", investigated
    )


def _by_rollout(
    facts: Facts, stage: str, name: str, target: str, source: str, judge: Callable[[RolloutFacts], Part | None]
) -> Row:
    """Unmet where one is; unknown where one is, or there is nothing to judge; those without data are left out."""
    parts = [part for one in facts.rollouts if (part := judge(one)) is not None]
    outcomes = [part.outcome for part in parts]
    outcome = next((o for o in (Outcome.UNMET, Outcome.UNKNOWN) if o in outcomes), Outcome.MET)
    if not parts:
        return Row(stage, name, target, source, Outcome.UNKNOWN, "no rollout has anything to show for it")
    told = "; ".join(f"{part.rollout}: {part.sentence}" for part in parts if part.outcome is outcome)
    silent = len(facts.rollouts) - len(parts)
    if silent:
        told += f" ({silent} of {len(facts.rollouts)} rollouts have nothing to show)"
    return Row(stage, name, target, source, outcome, told, parts[0].value if len(parts) == 1 else None, parts)


def _rate(one: RolloutFacts, part: int, n: int, holds: Callable[[float], bool], what: str) -> Part | None:
    if not n:
        return None
    rate = part / n
    return Part(one.name, _enough(n, ok=holds(rate)), rate, n, f"{what} {rate:.1%} of {n}")


def _p95(one: RolloutFacts, p95_ms: float | None, n: int) -> Part | None:
    if p95_ms is None:
        return None
    return Part(one.name, _enough(n, ok=p95_ms < TARGET_MS), p95_ms, n, f"p95 {p95_ms:.0f} ms of {n}")


def _enough(n: int, *, ok: bool) -> Outcome:
    return Outcome.UNKNOWN if n < AT_LEAST else _is(ok)


def _is(ok: bool) -> Outcome:  # noqa: FBT001 -- a truth becomes an outcome
    return Outcome.MET if ok else Outcome.UNMET


def _is_old(facts: Facts, period: Period) -> bool:
    """Whether a whole period has passed since the plane began."""
    days = 7 if period is Period.WEEKLY else 31
    return facts.started_at is not None and (facts.now - facts.started_at).days >= 2 * days
