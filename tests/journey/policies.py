"""Which policy do the journeys run under, and what do their callers ask?"""

from collections.abc import Callable
from typing import Any

LEGACY = """
rules:
  - {name: strangers, actions: ["*"], when: trust.lowest < 0.2, decision: deny}
  - {name: everyone, actions: ["*"], decision: allow}
"""

# Limits that nothing breaks, so that a journey sees only the rollbacks that it is about.
_DEFAULTS = """
defaults:
  deadline_ms: 5000
  latency_target_ms: 60000
  latency_alert_ms: 60000
  error_limit: 0.999
  fallback_limit: 0.999
  override_limit: 0.999
  shift_limit: 0.999
  alpha: 0.01
  horizon_days: 1
  review_rate: 0
  rollback_observe_days: 0
rollouts:
"""
_OTHER = """
  other: {actions: ["*"], risk: low, ceiling: enforced}
"""

# Guardrails of a rollout whose model is made to fail.
WATCHED = "guardrails: {error_limit: 0.05, latency_target_ms: 900}, deadline_ms: 1000"


def rollouts(**entries: str) -> str:
    """A rollouts file: by name, what an entry says beyond its condition and its ceiling.

    The rollout `x` takes what is written to resources under `x/`.
    """
    lines = [
        f"  {name}: {{actions: [write], when: \"resource.startsWith('{name}/')\", ceiling: enforced, {more}}}"
        for name, more in entries.items()
    ]
    return _DEFAULTS + "\n".join(lines) + _OTHER


def situation(rollout: str, number: int = 0, **more: Any) -> dict[str, Any]:
    """What the rules and the model allow alike."""
    trust = {"competence": 0.85, "reliability": 0.9, "integrity": 0.95}
    return {
        "action_type": "write",
        "actor_role": "maintainer",
        "actor_id": f"actor-{number}",
        "t3_tensor": trust,
        "resource": f"{rollout}/page-{number}",
        "recent_history": "no incidents in 90 days",
        **more,
    }


def about(rollout: str) -> Callable[[int], dict[str, Any]]:
    return lambda number: situation(rollout, number)


NO_TRUST = {"competence": 0.1, "reliability": 0.1, "integrity": 0.1}
