from dataclasses import fields, replace
from typing import Any

import pytest

from app.domain.limits import Action, GateLimits, GuardrailLimits, Query, Requirement, Risk
from app.domain.phase import Phase
from app.domain.rollout import Approval, Combine, RolloutPolicy
from app.policy import changes
from app.policy.changes import Policy, compare, settings_hash, tightened, touched
from app.policy.rollouts import RolloutBook, book_of

GATES = {
    Phase.ADVISORY: GateLimits(agreement_above=0.9, soak_days=14.0),
    Phase.ENFORCED: GateLimits(
        override_below=0.05, validation_above=0.95, soak_days=7.0, reviewed_at_least=100
    ),
}
READ = RolloutPolicy(
    "read", ("read", "list"), Risk.MEDIUM, Phase.ENFORCED, gates=GATES, exposure=(0.05, 0.5, 1.0)
)
WRITE = replace(READ, name="write", actions=("write",), requires=(Requirement("read", 3.0, 0.05),))
OTHER = RolloutPolicy(
    "other", ("*",), Risk.HIGH, Phase.ADVISORY, gates={Phase.ADVISORY: GATES[Phase.ADVISORY]}
)


def policy(*rollouts: RolloutPolicy, legacy: str = "rules") -> Policy:
    return Policy(book_of(rollouts), legacy)


BASE = policy(READ, WRITE, OTHER)


def gate(phase: Phase, **limits: Any) -> dict[str, Any]:
    return {"gates": {**GATES, phase: replace(GATES[phase], **limits)}}


def guardrail(**limits: Any) -> dict[str, Any]:
    return {"guardrails": GuardrailLimits(**limits)}


LOOSER: dict[str, dict[str, Any]] = {
    "actions": {"actions": ("read",)},
    "when": {"when": "resource == 'x'"},
    "risk": {"risk": Risk.LOW},
    "gates.advisory.agreement_above": gate(Phase.ADVISORY, agreement_above=0.8),
    "gates.advisory.soak_days": gate(Phase.ADVISORY, soak_days=13.9),
    "gates.enforced.override_below": gate(Phase.ENFORCED, override_below=None),
    "gates.enforced.validation_above": gate(Phase.ENFORCED, validation_above=None),
    "gates.enforced.reviewed_at_least": gate(Phase.ENFORCED, reviewed_at_least=99),
    "guardrails.override_limit": guardrail(override_limit=0.11),
    "guardrails.latency_target_ms": guardrail(latency_target_ms=6_000.0),
    "guardrails.alpha": guardrail(alpha=0.001),
    "guardrails.drift_limit": guardrail(drift_limit=0.2),
    "guardrails.stale_after_days": guardrail(stale_after_days=4.0),
    "guardrails.actions.error": guardrail(actions={"error": Action.HOLD}),
    "guardrails.dry_run": guardrail(dry_run=("error",)),
    "guardrails.horizon_days": guardrail(horizon_days=30.0),
    "exposure": {"exposure": (0.5, 1.0)},
    "combine": {"combine": Combine.MODEL},
    "review_rate": {"review_rate": 0.01},
    "gate_alpha": {"gate_alpha": 0.06},
    "rollback_observe_days": {"rollback_observe_days": 1.0},
    "cache": {"cache": True},
}
TIGHTER: dict[str, dict[str, Any]] = {
    "risk": {"risk": Risk.HIGH},
    "approval": {"approval": Approval.HUMAN},
    "rollback_to": {"rollback_to": Phase.SHADOW},
    "gates.advisory.agreement_above": gate(Phase.ADVISORY, agreement_above=0.95),
    "gates.enforced.override_below": gate(Phase.ENFORCED, override_below=0.04),
    "gates.enforced.validation_above": gate(Phase.ENFORCED, validation_above=0.97),
    "gates.enforced.error_below": gate(Phase.ENFORCED, error_below=0.01),
    "guardrails.error_limit": guardrail(error_limit=0.005),
    "guardrails.actions.shift": guardrail(actions={"shift": Action.HOLD}),
    "guardrails.queries": guardrail(queries=(Query("burn", "slo:burn", 2.0),)),
    "exposure": {"exposure": (0.01, 0.05, 0.5, 1.0)},
    "confidence_at_least": {"confidence_at_least": 0.5},
}
NEUTRAL: dict[str, dict[str, Any]] = {
    "deadline_ms": {"deadline_ms": 4_000.0},
    "observe_rate": {"observe_rate": 0.5},
    "attestation_ttl_s": {"attestation_ttl_s": 60.0},
}


@pytest.mark.parametrize(("key", "changed"), LOOSER.items(), ids=LOOSER)
def test_what_loosens_is_named_and_waits_for_a_person(key: str, changed: dict[str, Any]) -> None:
    after = policy(replace(READ, **changed), WRITE, OTHER)
    (change,) = compare(BASE, after)
    assert (change.rollout, change.key, change.loosens) == ("read", key, True)
    assert tightened(BASE, after).policies == BASE.book.policies


@pytest.mark.parametrize(("key", "changed"), [*TIGHTER.items(), *NEUTRAL.items()], ids=[*TIGHTER, *NEUTRAL])
def test_what_only_tightens_is_taken_at_once(key: str, changed: dict[str, Any]) -> None:
    after = policy(replace(READ, **changed), WRITE, OTHER)
    (change,) = compare(BASE, after)
    assert (change.rollout, change.key, change.loosens) == ("read", key, False)
    assert tightened(BASE, after).policies == after.book.policies


@pytest.mark.parametrize(("key", "changed"), TIGHTER.items(), ids=TIGHTER)
def test_taking_a_tightening_back_loosens(key: str, changed: dict[str, Any]) -> None:
    before = policy(replace(READ, **changed), WRITE, OTHER)
    assert touched(compare(before, BASE)) == {"read"}


def test_a_lowered_ceiling_tightens_and_a_raised_one_loosens() -> None:
    lowered = policy(
        replace(READ, ceiling=Phase.ADVISORY, gates={Phase.ADVISORY: GATES[Phase.ADVISORY]}), OTHER
    )
    higher = policy(READ, OTHER)
    assert touched(compare(higher, lowered)) == frozenset()
    assert touched(compare(lowered, higher)) == {"read"}
    assert [change.key for change in compare(lowered, higher) if change.loosens] == ["ceiling"]


def test_a_dropped_or_weakened_requirement_loosens() -> None:
    for requires in ((), (Requirement("read", 2.0, 0.05),), (Requirement("read", 3.0, None),)):
        after = policy(READ, replace(WRITE, requires=requires), OTHER)
        assert touched(compare(BASE, after)) == {"write"}
    assert not touched(compare(policy(READ, replace(WRITE, requires=()), OTHER), BASE))


def test_one_rollout_that_loosens_holds_back_no_other_that_tightens() -> None:
    stricter = replace(WRITE, confidence_at_least=0.9)
    after = policy(replace(READ, combine=Combine.MODEL), stricter, OTHER)
    assert tightened(BASE, after).policies == (READ, stricter, OTHER)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (policy(WRITE, READ, OTHER), {"*"}),
        (policy(READ, WRITE, OTHER, legacy="other rules"), {"*"}),
        (policy(READ, OTHER), {"write"}),
        (policy(READ, WRITE, replace(READ, name="new", actions=("new",)), OTHER), {"new"}),
    ],
    ids=["order", "legacy", "removed", "added"],
)
def test_another_matching_or_legacy_policy_is_never_taken_without_a_person(
    after: Policy, expected: set[str]
) -> None:
    assert touched(compare(BASE, after)) == expected
    assert tightened(BASE, after).policies == BASE.book.policies


def test_a_tightening_that_cannot_stand_without_the_rest_waits_with_it() -> None:
    new = replace(READ, name="new", actions=("new",))
    after = policy(new, replace(READ, requires=(Requirement("new", 3.0),)), WRITE, OTHER)
    assert tightened(BASE, after).policies == BASE.book.policies


def test_the_same_policy_has_no_changes_whatever_the_order_of_its_actions() -> None:
    assert compare(BASE, policy(replace(READ, actions=("list", "read")), WRITE, OTHER)) == ()


def test_tightening_never_loosens() -> None:
    for changed in (*LOOSER.values(), *TIGHTER.values(), *NEUTRAL.values()):
        after = policy(replace(READ, **changed), WRITE, OTHER)
        taken: RolloutBook = tightened(BASE, after)
        assert not touched(compare(BASE, Policy(taken, BASE.legacy)))


def test_a_query_that_is_changed_waits_for_a_person() -> None:
    before, after = (
        policy(replace(READ, **guardrail(queries=(Query("burn", "slo:burn", above),))), WRITE, OTHER)
        for above in (2.0, 3.0)
    )
    assert touched(compare(before, after)) == {"read"}


def test_what_a_higher_risk_brings_along_is_told_as_the_risk_alone() -> None:
    after = policy(replace(READ, risk=Risk.CRITICAL, approval=Approval.HUMAN), WRITE, OTHER)
    assert [change.key for change in compare(BASE, after)] == ["approval", "risk"]


def test_every_setting_of_a_policy_is_classified() -> None:
    names = {field.name for kind in (GateLimits, GuardrailLimits, Requirement) for field in fields(kind)}
    names |= set(changes._PLAIN)
    known = changes._LOOSER_UP | changes._LOOSER_DOWN | changes._NEUTRAL
    assert names - known == {"rollout", "actions", "when", "exposure", "dry_run", "queries"}


def test_only_what_changes_the_answers_starts_a_new_epoch() -> None:
    base = settings_hash(READ, "abc")
    assert settings_hash(replace(READ, exposure=(1.0,), deadline_ms=1.0), "abc") == base
    others = {
        settings_hash(READ, "abd"),
        settings_hash(replace(READ, combine=Combine.MODEL), "abc"),
        settings_hash(replace(READ, confidence_at_least=0.1), "abc"),
        settings_hash(replace(READ, cache=True), "abc"),
    }
    assert len(others | {base}) == 5
