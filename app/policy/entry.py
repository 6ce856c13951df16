"""What does one entry of the rollouts file say, with everything it leaves out filled in?"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.domain.limits import Action, GateLimits, Guardrail, GuardrailLimits, Query, Requirement, Risk
from app.domain.phase import Phase
from app.domain.rollout import Approval, Combine, RolloutPolicy
from app.policy.files import Node

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")  # it stands in addresses and metric labels
_MAX_MS = 600_000.0
_MAX_DAYS = 3650.0

Reader = Callable[[Node], Any]


def _share(node: Node) -> float:
    return node.inside(0, 1)


def _share_or_all(node: Node) -> float:
    return node.number(at_least=0, at_most=1)


def _days(node: Node) -> float:
    return node.number(at_least=0, at_most=_MAX_DAYS)


def _some_days(node: Node) -> float:
    return node.inside(0, _MAX_DAYS)


def _milliseconds(node: Node) -> float:
    return node.number(at_least=1, at_most=_MAX_MS)


_RATES = ("agreement_above", "override_below", "error_below", "wrong_allow_below", "validation_above")
_GATE: Mapping[str, Reader] = {
    **dict.fromkeys((*_RATES, "reviewers_agree_above"), _share),
    "p95_below_ms": _milliseconds,
    "soak_days": _days,
    "reviewed_at_least": Node.whole,
    "approvals": Node.whole,
}
_LIMITS = ("override_limit", "error_limit", "fallback_limit", "shift_limit", "drift_limit")
_GUARDRAILS: Mapping[str, Reader] = {
    **dict.fromkeys((*_LIMITS, "self_disagreement_limit"), _share),
    **dict.fromkeys(("latency_target_ms", "latency_alert_ms"), _milliseconds),
    **dict.fromkeys(("stale_after_days", "horizon_days"), _some_days),
    "alpha": lambda node: node.inside(0, 0.5),
}
_ACTS = ("actions", "dry_run", "queries")
_SETTINGS: Mapping[str, Reader] = {
    **dict.fromkeys(("observe_rate", "review_rate", "ask_twice_rate", "double_review_rate"), _share_or_all),
    **dict.fromkeys(("review_due_days", "lapse_days"), _some_days),
    "deadline_ms": _milliseconds,
    "advisory_wait_ms": lambda node: node.number(at_least=0, at_most=_MAX_MS),
    "attestation_ttl_s": lambda node: node.number(at_least=1, at_most=30 * 86_400),
    "confidence_at_least": lambda node: node.number(at_least=0, at_most=0.999_999),
    "gate_alpha": lambda node: node.inside(0, 0.5),
    "rollback_observe_days": _days,
    "window_hours": lambda node: node.number(at_least=1, at_most=31 * 24),
    "actor_share": lambda node: node.number(at_least=0.001, at_most=1),
    "actors_at_least": Node.whole,
    "ramp_step_hours": lambda node: node.number(at_least=0.01, at_most=24 * 365),
    "ramp_observations": Node.whole,
}
_REQUIREMENT: Mapping[str, Reader] = {"enforced_days": _days, "override_below": _share}

# What a gate asks where the file does not say: the deployment checklist's numbers by risk.
_TO_ADVISORY = GateLimits(agreement_above=0.90, error_below=0.01, p95_below_ms=5_000.0, soak_days=14.0)
_TO_ENFORCED = {
    Risk.LOW: GateLimits(override_below=0.05, soak_days=7.0, reviewed_at_least=100),
    Risk.MEDIUM: GateLimits(override_below=0.10, soak_days=7.0, reviewed_at_least=100),
    Risk.HIGH: GateLimits(
        override_below=0.10, wrong_allow_below=0.01, soak_days=14.0, reviewed_at_least=300, approvals=1
    ),
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """The file's `defaults`: settings of a rollout, and limits of its guardrails."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    guardrails: Mapping[str, Any] = field(default_factory=dict)


def read_defaults(node: Node) -> Defaults:
    found = node.fields((*_SETTINGS, *_GUARDRAILS))
    defaults = Defaults(_read(found, _SETTINGS), _read(found, _GUARDRAILS))
    _check_latencies(GuardrailLimits(**defaults.guardrails), found)
    return defaults


def read_entry(name: str, node: Node, *, defaults: Defaults) -> RolloutPolicy:
    """One rollout. What concerns several, such as reach and cycles, is judged over the whole file."""
    if not _NAME.fullmatch(name):
        raise node.error("a rollout's name is a-z, 0-9 and '-', at most 63 characters")
    known = (*_SHAPE, "gates", "guardrails", *_SETTINGS)
    found = node.fields(known, required=("actions", "risk", "ceiling"))
    shape = _read(found, _SHAPE)
    risk = shape["risk"]
    by_risk = {
        "combine": Combine.MODEL if risk is Risk.LOW else Combine.STRICTER,
        "approval": Approval.HUMAN if risk is Risk.CRITICAL else Approval.NONE,
        "cache": not risk.is_high,
    }
    policy = RolloutPolicy(
        name=name,
        gates=_gates(found.get("gates"), risk, shape["ceiling"]),
        guardrails=_guardrails(found.get("guardrails"), defaults),
        **{**by_risk, **shape, **defaults.settings, **_read(found, _SETTINGS)},
    )
    if policy.advisory_wait_ms > policy.deadline_ms:
        raise found.get("advisory_wait_ms", node).error(
            "waits longer for the advisory than deadline_ms allows"
        )
    return policy


def _gates(node: Node | None, risk: Risk, ceiling: Phase) -> dict[Phase, GateLimits]:
    to_enforced = _TO_ENFORCED.get(risk, _TO_ENFORCED[Risk.HIGH])
    gates = {Phase.ADVISORY: _TO_ADVISORY, Phase.ENFORCED: to_enforced}
    gates = {phase: limits for phase, limits in gates.items() if phase.rank <= ceiling.rank}
    written = {} if node is None else node.fields((Phase.ADVISORY.value, Phase.ENFORCED.value))
    for name, gate in written.items():
        if Phase(name) not in gates:
            raise gate.error(f"stands above the ceiling, which is {ceiling}")
        limits = _read(gate.fields(_GATE), _GATE)
        if not any(limits.values()):
            raise gate.error("asks for nothing: a gate needs at least one condition")
        gates[Phase(name)] = GateLimits(**limits)
    return gates


def _guardrails(node: Node | None, defaults: Defaults) -> GuardrailLimits:
    own = {} if node is None else node.fields((*_GUARDRAILS, *_ACTS))
    queries = _queries(own.get("queries"))
    limits = GuardrailLimits(
        **{**defaults.guardrails, **_read(own, _GUARDRAILS)},
        actions=_actions(own.get("actions")),
        dry_run=_dry_run(own.get("dry_run"), {*Guardrail, *(query.name for query in queries)}),
        queries=queries,
    )
    _check_latencies(limits, own)
    return limits


def _check_latencies(limits: GuardrailLimits, found: Mapping[str, Node]) -> None:
    place = found.get("latency_alert_ms") or found.get("latency_target_ms")
    if place is not None and limits.latency_alert_ms < limits.latency_target_ms:
        raise place.error(
            f"latency_alert_ms, {limits.latency_alert_ms:g}, lies below latency_target_ms, "
            f"{limits.latency_target_ms:g}"
        )


def _actions(node: Node | None) -> dict[str, Action]:
    if node is None:
        return {}
    chosen = {name: item.one_of(Action) for name, item in node.fields(tuple(Guardrail)).items()}
    if Guardrail.WRONG_ALLOW in chosen:
        raise node.entries()[Guardrail.WRONG_ALLOW].error("is not a choice: its action goes with the risk")
    return chosen


def _dry_run(node: Node | None, known: Collection[str]) -> tuple[str, ...]:
    names = [] if node is None else [(item, item.text()) for item in node.items()]
    for item, name in names:
        if name not in known or name == Guardrail.WRONG_ALLOW:
            raise item.error(f"{name!r} is not a guardrail that can run dry")
    return tuple(name for _, name in names)


def _queries(node: Node | None) -> tuple[Query, ...]:
    return tuple(_query(name, item) for name, item in (node.entries() if node else {}).items())


def _query(name: str, node: Node) -> Query:
    if not _NAME.fullmatch(name) or name.replace("-", "_") in list(Guardrail):
        raise node.error("a query's name is a-z, 0-9 and '-', and no guardrail's")
    found = node.fields(("query", "above", "looks", "action"), required=("query", "above"))
    return Query(
        name,
        found["query"].text(),
        found["above"].number(at_least=-1e12, at_most=1e12),
        _looks(found["looks"]) if "looks" in found else 3,
        found["action"].one_of(Action) if "action" in found else Action.NOTIFY,
    )


def _looks(node: Node) -> int:
    node.number(at_least=1, at_most=1_000)
    return node.whole()


def _exposure(node: Node) -> tuple[float, ...]:
    steps: list[float] = []
    for item in node.items():
        percent = item.number(at_least=0.1, at_most=100)
        if steps and percent <= steps[-1]:
            raise item.error("the steps of exposure must rise")
        steps.append(percent)
    if steps[-1] != 100:
        raise node.error("the steps of exposure must end at 100 (per cent of actors)")
    return tuple(round(percent / 100, 12) for percent in steps)


def _requires(node: Node) -> tuple[Requirement, ...]:
    return tuple(
        Requirement(name, **_read(item.fields(_REQUIREMENT, required=("enforced_days",)), _REQUIREMENT))
        for name, item in node.entries().items()
    )


def _rollback_to(node: Node) -> Phase:
    phase = node.one_of(Phase)
    if phase is Phase.ENFORCED:
        raise node.error("a rollback ends in advisory or shadow")
    return phase


def _read(found: Mapping[str, Node], readers: Mapping[str, Reader]) -> dict[str, Any]:
    return {name: read(found[name]) for name, read in readers.items() if name in found}


_SHAPE: Mapping[str, Reader] = {
    "actions": Node.texts,
    "when": Node.text,
    "risk": lambda node: node.one_of(Risk),
    "ceiling": lambda node: node.one_of(Phase),
    "exposure": _exposure,
    "requires": _requires,
    "combine": lambda node: node.one_of(Combine),
    "approval": lambda node: node.one_of(Approval),
    "rollback_to": _rollback_to,
    "cache": Node.yes,
}
