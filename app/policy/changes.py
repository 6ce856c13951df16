"""What differs between two policies, and which differences loosen them?"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any

from app.domain.limits import GateLimits, Guardrail, GuardrailLimits, Requirement
from app.domain.rollout import RolloutPolicy
from app.errors import PolicyError
from app.policy.rollouts import RolloutBook, book_of

EVERY = "*"  # stands for all rollouts: the order of the file, the legacy rules


@dataclass(frozen=True, slots=True)
class Policy:
    """All that decides how situations are judged: the rollouts, and the legacy engine's text."""

    book: RolloutBook
    legacy: str


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `key` is dotted as in the file; a value that was not there is None."""

    rollout: str
    key: str
    before: Any
    after: Any
    loosens: bool


def compare(before: Policy, after: Policy) -> tuple[Change, ...]:
    """Every difference between two policies, in the order of the new file, the legacy text last."""
    old = {policy.name: policy for policy in before.book.policies}
    new = {policy.name: policy for policy in after.book.policies}
    changes = [Change(name, "", name, None, loosens=True) for name in old if name not in new]
    for name, policy in new.items():
        changes.extend(_between(old[name], policy) if name in old else _added(policy))
    order = [name for name in old if name in new], [name for name in new if name in old]
    if order[0] != order[1]:
        changes.append(Change(EVERY, "order", *order, loosens=True))
    if before.legacy != after.legacy:
        # Whether one set of rules is laxer than another cannot be seen from its text.
        changes.append(Change(EVERY, "legacy", _sha256(before.legacy), _sha256(after.legacy), loosens=True))
    return tuple(changes)


def touched(changes: tuple[Change, ...]) -> frozenset[str]:
    """The rollouts that loosening changes send to shadow; `*` means every one."""
    return frozenset(change.rollout for change in changes if change.loosens)


def tightened(before: Policy, after: Policy) -> RolloutBook:
    """The old book with every rollout taken anew that only tightens: what needs no person.

    Order, matching and legacy rules stay as they were.
    """
    new = {policy.name: policy for policy in after.book.policies}
    policies = tuple(
        new[policy.name]
        if policy.name in new and not any(change.loosens for change in _between(policy, new[policy.name]))
        else policy
        for policy in before.book.policies
    )
    try:
        return book_of(policies)
    except PolicyError:  # a tightened rollout requires one that is new, or that still requires it
        return before.book


def settings_hash(policy: RolloutPolicy, legacy_sha256: str) -> str:
    """Another hash starts a new epoch: what was observed was about other answers.

    Or about other questions: with `cache` each distinct one is observed once, without it each time; and what
    counts of them hangs on the window and on an actor's share of it.
    """
    counted = [policy.cache, policy.window_hours, policy.actor_share]
    return _sha256(json.dumps([policy.combine, policy.confidence_at_least, *counted, legacy_sha256]))


def _added(policy: RolloutPolicy) -> Iterator[Change]:
    # A new rollout takes situations from those behind it.
    yield Change(policy.name, "", None, policy.name, loosens=True)


def _between(before: RolloutPolicy, after: RolloutPolicy) -> Iterator[Change]:
    old, new = _flat(before, like=after), _flat(after, like=after)
    for key in sorted(old.keys() | new.keys()):
        one, other = old.get(key), new.get(key)
        if one != other:
            yield Change(after.name, key, one, other, loosens=_loosens(key, one, other))


def _flat(policy: RolloutPolicy, *, like: RolloutPolicy) -> dict[str, Any]:
    """Dotted keys to values; what is not asked for, and gates above the ceiling of `like`, are left out.

    Guardrails act as at the risk of `like`: what another risk brings along is told as the risk alone.
    """
    parts = {name: getattr(policy, name) for name in _PLAIN}
    parts["actions"] = tuple(sorted(policy.actions))
    nested: dict[str, GateLimits | GuardrailLimits | Requirement] = {"guardrails": policy.guardrails}
    nested |= {
        f"gates.{phase}": gate for phase, gate in policy.gates.items() if phase.rank <= like.ceiling.rank
    }
    nested |= {f"requires.{item.rollout}": item for item in policy.requires}
    for prefix, limits in nested.items():
        parts |= {f"{prefix}.{name}": value for name, value in asdict(limits).items() if name != "rollout"}
    parts["guardrails.actions"] = None  # told one by one, as they come out
    at_risk = replace(policy, risk=like.risk)
    parts |= {f"guardrails.actions.{name}": at_risk.action(name) for name in Guardrail}
    return {key: value for key, value in parts.items() if value is not None}


def _loosens(key: str, before: Any, after: Any) -> bool:
    name = key.rsplit(".", 1)[-1]
    if name in _NEUTRAL:
        return False
    if name == "dry_run":
        return not set(after) <= set(before)
    if name == "queries":
        return not {*map(str, before)} <= {*map(str, after)}
    if ".actions." in key:
        name = "action"
    if name == "exposure":  # more steps, and none skipped, is the slower ramp
        return not set(before) <= set(after)
    if name not in _LOOSER_UP and name not in _LOOSER_DOWN:
        return True  # the matching, and whatever nobody classified
    if before is None or after is None:
        return after is None
    rises = _rank(after) > _rank(before)
    return rises if name in _LOOSER_UP else not rises


def _rank(value: Any) -> float:
    """Values of closed sets by their order; each is listed in rising order."""
    if isinstance(value, StrEnum):
        return list(type(value)).index(value)
    return float(value)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_PLAIN = tuple(
    field.name
    for field in fields(RolloutPolicy)
    if field.name not in ("name", "gates", "guardrails", "requires")
)
_NEUTRAL = frozenset({"deadline_ms", "advisory_wait_ms", "observe_rate", "attestation_ttl_s"})
_LOOSER_UP = frozenset(
    # `cache`: a question that comes again is neither observed nor reviewed again.
    {"ceiling", "rollback_to", "combine", "review_due_days", "lapse_days", "gate_alpha", "cache"}
    | {"override_below", "error_below", "wrong_allow_below", "p95_below_ms"}
    | {"override_limit", "error_limit", "fallback_limit", "shift_limit"}
    | {"latency_target_ms", "latency_alert_ms", "horizon_days"}
    | {"drift_limit", "self_disagreement_limit", "stale_after_days", "action", "actor_share"}
)
_LOOSER_DOWN = frozenset(
    {"risk", "approval", "review_rate", "confidence_at_least", "rollback_observe_days"}
    | {"agreement_above", "validation_above", "soak_days", "reviewed_at_least", "enforced_days", "alpha"}
    | {"reviewers_agree_above", "approvals", "actors_at_least", "window_hours", "ask_twice_rate"}
    | {"double_review_rate", "ramp_step_hours", "ramp_observations"}
)
