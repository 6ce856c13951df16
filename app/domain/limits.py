"""Which limits does a rollout carry, and what does it cost to break one?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never


class Risk(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def is_high(self) -> bool:
        """High and critical: zero wrong allows, and no fallback that a caller can provoke may loosen."""
        return self in (Risk.HIGH, Risk.CRITICAL)


class Guardrail(StrEnum):
    """What is watched. The queries that a policy adds have names of their own."""

    OVERRIDE = "override"  # people's verdicts on drawn decisions
    ERROR = "error"  # time-outs, crashes, malformed answers
    LATENCY = "latency"  # share of answers above the target
    LATENCY_ALERT = "latency_alert"
    FALLBACK = "fallback"  # enforced decisions that the legacy engine had to give
    SHIFT = "shift"  # the model's answers against its own baseline
    PAIRED_SHIFT = "paired_shift"  # against the legacy engine's, on the same situations
    AGREEMENT_DRIFT = "agreement_drift"  # this week's agreement against the last one's
    SELF_DISAGREEMENT = "self_disagreement"  # the same question asked twice
    WRONG_ALLOW = "wrong_allow"


class Action(StrEnum):
    """What a breach leads to, from strict to lenient. In shadow it is only reported, whatever this says."""

    ROLLBACK = "rollback"
    HOLD = "hold"
    NOTIFY = "notify"


def default_action(guardrail: Guardrail, risk: Risk) -> Action:
    match guardrail:
        case Guardrail.OVERRIDE | Guardrail.ERROR | Guardrail.LATENCY | Guardrail.PAIRED_SHIFT:
            return Action.ROLLBACK
        case Guardrail.FALLBACK:
            # Callers can provoke fallbacks: on high risk that must not bring back the laxer engine.
            return Action.HOLD if risk.is_high else Action.ROLLBACK
        case Guardrail.WRONG_ALLOW:
            return Action.ROLLBACK if risk.is_high else Action.NOTIFY
        case (
            Guardrail.LATENCY_ALERT
            | Guardrail.SHIFT  # other traffic moves it as well as another model
            | Guardrail.AGREEMENT_DRIFT
            | Guardrail.SELF_DISAGREEMENT
        ):
            return Action.NOTIFY
        case _:
            assert_never(guardrail)


@dataclass(frozen=True, slots=True)
class Query:
    """A guardrail that reads a number from Prometheus: breached where it lies above `above` at `looks` looks
    in a row. No answer is an error, never good news.
    """

    name: str
    query: str  # PromQL; its answer is one number
    above: float
    looks: int = 3
    action: Action = Action.NOTIFY


@dataclass(frozen=True, slots=True)
class Requirement:
    """Another rollout that must have been enforced for a while."""

    rollout: str
    enforced_days: float
    override_below: float | None = None


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Conditions for entering one phase; None means not asked. Rates 0..1, times as named.

    `validation_above` is about the pass rate of the active version's latest validation.
    """

    agreement_above: float | None = None
    override_below: float | None = None
    error_below: float | None = None
    wrong_allow_below: float | None = None
    p95_below_ms: float | None = None
    validation_above: float | None = None
    soak_days: float = 0.0
    reviewed_at_least: int = 0
    reviewers_agree_above: float | None = None  # two people who judge the same blind: share and Gwet's AC1
    approvals: int = 0  # by other people than the one who promotes


@dataclass(frozen=True, slots=True)
class GuardrailLimits:
    """What is watched. Rates 0..1; latencies in ms; `alpha` over `horizon_days`, shared by those that act.

    `stale_after_days` without news of a stream that had some make it stale: neither good nor bad.
    """

    override_limit: float = 0.10
    error_limit: float = 0.01
    fallback_limit: float = 0.10
    shift_limit: float = 0.20
    latency_target_ms: float = 5_000.0
    latency_alert_ms: float = 10_000.0
    drift_limit: float = 0.10
    self_disagreement_limit: float = 0.01
    stale_after_days: float = 3.0
    alpha: float = 0.01
    horizon_days: float = 14.0
    # By guardrail, where it is not as the risk suggests.
    actions: Mapping[str, Action] = field(default_factory=dict)
    dry_run: tuple[str, ...] = ()  # guardrails and queries that only report what they would have done
    queries: tuple[Query, ...] = ()
