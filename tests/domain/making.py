"""What do the tests of the domain's judgements judge?"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from app.domain.counters import Metric
from app.domain.evidence import Evidence, from_totals
from app.domain.limits import GateLimits, GuardrailLimits, Risk
from app.domain.phase import Phase
from app.domain.rollout import RolloutPolicy, RolloutState

START = datetime(2026, 11, 1, tzinfo=UTC)
NOW = START + timedelta(days=15)

GATES = {
    Phase.ADVISORY: GateLimits(agreement_above=0.90, error_below=0.01, p95_below_ms=5_000, soak_days=14),
    Phase.ENFORCED: GateLimits(override_below=0.05, soak_days=7, reviewed_at_least=100),
}


def policy(**changes: Any) -> RolloutPolicy:
    plain = RolloutPolicy(
        "read",
        ("read",),
        Risk.LOW,
        Phase.ENFORCED,
        gates=GATES,
        guardrails=GuardrailLimits(),
        review_rate=1.0,
        actors_at_least=0,
    )
    return replace(plain, **changes)


def state(**changes: Any) -> RolloutState:
    return replace(RolloutState("read", Phase.SHADOW, 1.0, 1, 1, START, "v1"), **changes)


def evidence(
    totals: Mapping[tuple[Metric, str], int], *, days: int = 15, independent: bool = True, epoch: int = 1
) -> Evidence:
    """Evidence of whole days of service with observations enough."""
    return from_totals(
        "read",
        "v1",
        epoch=epoch,
        epoch_started_at=START,
        totals={(metric.value, label): n for (metric, label), n in totals.items()},
        days=dict.fromkeys(range(days), (100, 86_400)),
        independent=independent,
    )


def shadow_totals(
    n: int = 2_000, *, disagreed: int = 0, errors: int = 0, late: int = 0
) -> dict[tuple[Metric, str], int]:
    """A shadow epoch of `n` answers of the model, a few of which went wrong."""
    return {
        (Metric.DECISION, "allow"): n,
        (Metric.OBSERVATION, "ok"): n - errors,
        (Metric.OBSERVATION, "timeout"): errors,
        (Metric.PAIR, "allow>allow"): n - errors - disagreed,
        (Metric.PAIR, "deny>allow"): disagreed,
        (Metric.MODEL, "allow"): n - errors,
        (Metric.LATENCY, "-40"): n - late,
        (Metric.LATENCY, "9"): late,
    }


def reviewed_totals(
    reviewed: int, *, overridden: int = 0, drawn: int | None = None, wrong: int = 0, allows: int = 0
) -> dict[tuple[Metric, str], int]:
    """Everything drawn, most of it judged."""
    return {
        (Metric.PAIR, "allow>allow"): reviewed,
        (Metric.DRAWN, "agreement:0"): reviewed if drawn is None else drawn,
        (Metric.REVIEWED, "agreement:0"): reviewed,
        (Metric.OVERRIDDEN, "agreement:0"): overridden,
        (Metric.REVIEWED_ALLOW, "all"): allows,
        (Metric.WRONG_ALLOW, "all"): wrong,
    }
