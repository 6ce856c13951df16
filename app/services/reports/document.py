"""How do facts become one document, that a machine and a person can read?"""

from collections import Counter
from typing import Any

from app.domain.clock import rfc3339, to_us
from app.domain.condition import HOPELESS
from app.domain.counters import LAST_BUCKET, Metric, bucket_middle_ms
from app.domain.evidence import Evidence
from app.domain.phase import Phase
from app.domain.sequential import lower_bound, upper, upper_bound
from app.learning.corrections import EXAMPLES_AT_LEAST
from app.services.reports.checklist import AT_LEAST, REVIEW_THE_PROMPT, Outcome, checklist
from app.services.reports.facts import TREND_DAYS, Facts, RolloutFacts
from app.services.reports.people import EDGES_AT_MOST, by_mode, doubles, edge_cases, waiting
from app.services.reports.uptime import OF_MODEL, OF_PLANE
from app.store import reporting

_DAY_US = 86_400_000_000


def document_of(facts: Facts) -> dict[str, Any]:
    """The report, JSON-ready. It holds ids of decisions, and nothing of their situations but the actors' roles."""
    span, rows = facts.span, checklist(facts)
    met = Counter(row["outcome"] for row in rows)
    return {
        "id": span.id,
        "period": span.period,
        "starts_at": rfc3339(to_us(span.starts_at)),
        "ends_at": rfc3339(to_us(span.ends_at)),
        "complete": facts.complete,
        "made_at": rfc3339(to_us(facts.now)),
        "summary": {outcome.value: met[outcome] for outcome in Outcome},
        "checklist": rows,
        "rollouts": [_rollout(one, facts) for one in facts.rollouts],
        "disagreements": _disagreements(facts),
        "edge_cases": edge_cases(facts.verdicts),
        "reviewers": {
            "by_mode": by_mode(facts.verdicts),
            "doubles": doubles(facts.sums(Metric.DOUBLE)),
            "backlog": waiting(facts.backlog),
            "satisfaction": {name: facts.satisfaction[name] for name in ("n", "mean", "by_score")},
        },
        "uptime": _uptime(facts),
        "compute": _compute(facts),
        "bounds": _bounds(facts),
    }


def _rollout(one: RolloutFacts, facts: Facts) -> dict[str, Any]:
    document, gate = one.document, one.document["gate"]
    return {
        "name": one.name,
        "risk": one.policy.risk,
        "phase": document["phase"],
        "exposure": document["exposure"],
        "version": document["version"],
        "period_version": one.period.version,
        "status": document["status"],
        "gate": None if gate is None else {name: gate[name] for name in ("to", "outcome", "sentence")},
        "guardrails": [
            {name: guardrail[name] for name in ("name", "outcome", "sentence")}
            for guardrail in document["guardrails"]
        ],
        "figures": _figures(one.period, alpha=one.policy.gate_alpha),
        "trend": [{"day": rfc3339(day * _DAY_US)[:10], **_point(seen)} for day, seen in one.days.items()],
        "baseline": None if one.baseline is None else {"epoch": one.baseline.epoch, **_point(one.baseline)},
        "transitions": [
            {
                **{name: row[name] for name in ("kind", "actor", "automatic", "reason")},
                "at": rfc3339(row["created_us"]),
            }
            for row in facts.transitions
            if row["rollout"] in (one.name, reporting.PLANE)
        ],
        "next_step": _next_step(one),
    }


def _figures(seen: Evidence, *, alpha: float) -> dict[str, Any]:
    """Rates with the bound of risk `alpha` on the side that matters."""
    n, reviewed = seen.compared, seen.n(Metric.REVIEWED)
    return {
        **_point(seen),
        "decisions": seen.n(Metric.DECISION) + seen.n(Metric.UNEXPOSED),
        "agreement_lower": lower_bound(n, seen.agreed, alpha) if n else None,
        "errors_upper": upper_bound(seen.observed, seen.errors, alpha) if seen.observed else None,
        "reviewed": reviewed,
        "override_rate": seen.override_rate,
        "override_upper": upper(seen.override_groups, alpha) if reviewed else None,
        "wrong_allows": seen.wrong_allows,
        "fell_back": seen.fell_back,
    }


def _point(seen: Evidence) -> dict[str, Any]:
    return {
        "observed": seen.observed,
        "pairs": seen.compared,
        "agreement": _share(seen.agreed, seen.compared),
        "error_rate": _share(seen.errors, seen.observed),
        "p50_ms": seen.percentile_ms(0.50),
        "p95_ms": seen.percentile_ms(0.95),
        "p99_ms": seen.percentile_ms(0.99),
        "distribution": seen.distribution,
    }


def _next_step(one: RolloutFacts) -> str:
    """One sentence: harm before all, then what waits for a person, then what the evidence carries."""
    document, name = one.document, one.name
    if document["kill_switch"]:
        return "find why the kill switch was engaged, then release it: phasegate kill release"
    if one.state.investigation is not None and one.state.investigation.is_open:
        return f"close the investigation: phasegate investigation {name} --cause … --fix …"
    for guardrail in document["guardrails"]:
        if guardrail["outcome"] in ("breach", "error"):
            return f"look into the guardrail {guardrail['name']}: {guardrail['sentence']}"
    if one.state.held:
        return f"end the hold when its reason is gone ({one.state.hold_reason}): phasegate resume {name}"
    return _learning(one) or _promotion(one)


def _learning(one: RolloutFacts) -> str | None:
    rate, judged = one.now.override_rate, one.now.n(Metric.REVIEWED)
    if rate is not None and judged >= AT_LEAST and rate > REVIEW_THE_PROMPT:
        return f"review the prompt or add examples: overrides {rate:.0%} of {judged} judged"
    corrections = one.now.n(Metric.OVERRIDDEN)
    if corrections >= EXAMPLES_AT_LEAST:
        return f"train: {corrections} corrections (phasegate learn {one.name})"
    return None


def _promotion(one: RolloutFacts) -> str:
    gate = one.document["gate"]
    if one.state.running_ramp is not None:
        return f"nothing: its ramp widens the exposure from {one.state.exposure:.0%} by itself"
    wider = [step for step in one.policy.exposure if step > one.state.exposure]
    if one.state.phase is not Phase.SHADOW and wider:
        how = f"phasegate exposure {one.name} {wider[0]:.0%} --reason …".replace("%", "")
        return f"widen the exposure from {one.state.exposure:.0%} when it has been quiet: {how}"
    if gate is None:
        return f"nothing: {one.document['status']['sentence']}"
    if gate["outcome"] == "pass":
        return f"promote {one.name} to {gate['to']}: all conditions hold"
    missing = [each["sentence"] for each in gate["conditions"] if each["outcome"] == gate["outcome"]]
    others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    stuck = next((said for said in missing if HOPELESS in said), None)
    if stuck is not None:
        return f"change the model or its rules for {gate['to']}: {stuck}{others}"
    if gate["outcome"] == "insufficient":
        return f"wait for evidence for {gate['to']}: {missing[0]}{others}"
    return f"mend what speaks against {gate['to']}: {missing[0]}{others}"


def _disagreements(facts: Facts) -> dict[str, Any]:
    """Every cluster with what its rows have in common, how many they are, their share and an example."""
    found, looked = facts.disagreements["found"], facts.disagreements["looked_at"]
    clusters = [{**row, "share": row["n"] / found} for row in facts.clusters]
    return {"looked_at": looked, "found": found, "clusters": clusters}


def _uptime(facts: Facts) -> dict[str, Any]:
    """Seconds counted, of the seconds since the plane first started or the period began."""
    served = facts.sums(Metric.UP_S, plane=True)
    return {
        "counted_from": rfc3339(to_us(facts.counted_from)),
        "wall_s": facts.wall_s,
        "plane_s": served[OF_PLANE],
        "model_s": served[OF_MODEL],
    }


def _compute(facts: Facts) -> dict[str, Any]:
    """What the model's answers took; time-outs are left out, for nobody knows how long they would have."""
    buckets = {int(label): n for label, n in facts.sums(Metric.LATENCY).items() if int(label) < LAST_BUCKET}
    answers, seconds = sum(buckets.values()), sum(n * bucket_middle_ms(k) / 1000 for k, n in buckets.items())
    tokens = facts.disagreements["prompt_tokens"]
    return {
        "answers": answers,
        "model_s": seconds,
        "answers_per_model_s": answers / seconds if seconds else None,
        "prompt_tokens": None if tokens is None else round(float(tokens) * answers),
        "worker_cpu_s": facts.resources.worker_cpu_s,
    }


def _bounds(facts: Facts) -> list[str]:
    """What the document says little or nothing of, and how it counts."""
    now = "" if facts.complete else "The period is not over: figures are of its days so far. "
    advisories, disagreements = reporting.ADVISORIES_AT_MOST, reporting.DISAGREEMENTS_AT_MOST
    return [
        f"{now}Figures are sums of counters over whole UTC days.",
        "Phases, gates, guardrails, waiting reviews and resources are as they stood when the report was made.",
        f"Trends reach back {TREND_DAYS} days at least. The baseline is the rollout's last shadow epoch with answers.",
        f"Disagreements are among the newest {advisories:,} advisories, grouped from the newest {disagreements:,}.",
        f"At most {reporting.CLUSTERS_AT_MOST} groups and {EDGES_AT_MOST} edge cases are shown.",
        f"Verdicts are the newest {reporting.VERDICTS_AT_MOST:,} of the period.",
        f"A checklist row compares the figure itself, from {AT_LEAST} cases on; proof is what a gate asks for.",
        "Model seconds come from latency buckets, at most 4.4 % off; time-outs are left out.",
        "Prompt tokens are estimated by the mean of the advisories looked at.",
        "CPU seconds are those of the running worker since it started.",
    ]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
