from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.approval import Approval, counted
from app.domain.circumstance import Surroundings
from app.domain.condition import Condition, GateOutcome
from app.domain.freeze import Frozen
from app.domain.gate import Gate, GateContext, assess_gate
from app.domain.limits import GateLimits
from app.domain.phase import Phase
from app.domain.role import Principal, Role
from app.domain.rollout import RolloutState
from tests.domain.making import NOW, evidence, policy, reviewed_totals, state

PASS, INSUFFICIENT, FAIL, ERROR = GateOutcome
ADVISED = state(phase=Phase.ADVISORY)
CALM = Surroundings()
OF = policy(gates={Phase.ENFORCED: GateLimits(reviewed_at_least=100, approvals=1)})
OWNER = Principal("k-owner", "olga", frozenset({Role.OPERATOR}), frozenset({"olga"}))

people = st.frozensets(st.sampled_from(["olga", "anna", "ben", "cleo"]), max_size=2)
keys = st.sampled_from(["k-owner", "k-1", "k-2", "k-3"])


def word(key_id: str = "k-1", actors: frozenset[str] = frozenset()) -> Approval:
    return Approval("a1", "read", Phase.ENFORCED, 1, "v1", key_id, f"holder of {key_id}", actors)


def judged(
    *given: Approval,
    reviewed: int = 100,
    by: Principal | None = OWNER,
    approvals: int = 1,
    around: Surroundings = CALM,
    at: RolloutState = ADVISED,
) -> Gate:
    limits = replace(OF.gates[Phase.ENFORCED], approvals=approvals)
    context = GateContext(around, latest_at=NOW, approvals=given, by=by)
    of = replace(OF, gates={Phase.ENFORCED: limits})
    return assess_gate(of, at, evidence(reviewed_totals(reviewed)), context, to=Phase.ENFORCED, now=NOW)


def asked(gate: Gate) -> Condition:
    return next(condition for condition in gate.conditions if condition.name == "approvals")


def test_without_a_second_person_it_is_insufficient_and_says_the_command() -> None:
    gate = judged()
    assert (gate.outcome, asked(gate).needed, gate.is_carried) == (INSUFFICIENT, 1, True)
    assert "phasegate approve read --to enforced --reason …" in asked(gate).sentence


def test_a_second_person_opens_the_gate_and_is_named() -> None:
    gate = judged(word())
    assert gate.outcome is PASS
    assert asked(gate).sentence == "1 of 1 approvals (by holder of k-1, key k-1)"


@pytest.mark.parametrize(
    "own",
    [
        pytest.param(word("k-owner"), id="by the same key"),
        pytest.param(word("k-1", frozenset({"olga"})), id="by another key of the same person"),
    ],
)
def test_nobody_approves_what_they_promote(own: Approval) -> None:
    gate = judged(own)
    assert gate.outcome is INSUFFICIENT
    assert "one's own does not count" in asked(gate).sentence


def test_two_keys_of_one_person_are_one_approval() -> None:
    same = frozenset({"anna"})
    assert judged(word("k-1", same), word("k-2", same), approvals=2).outcome is INSUFFICIENT
    assert judged(word("k-1", same), word("k-2", frozenset({"ben"})), approvals=2).outcome is PASS


def test_an_approval_is_worth_nothing_while_another_condition_does_not_hold() -> None:
    gate = judged(word(), reviewed=99)
    assert (asked(gate).outcome, gate.is_carried) == (INSUFFICIENT, False)
    assert "the word of holder of k-1 is void" in asked(gate).sentence


def test_what_says_nothing_of_the_evidence_leaves_an_approval_alone() -> None:
    around = Surroundings(kill_switch=True, frozen=Frozen("frozen until Monday: rest", None))
    gate = judged(word(), around=around, at=replace(ADVISED, held=True))
    assert (gate.outcome, asked(gate).outcome, gate.is_carried) == (FAIL, PASS, True)


@given(st.lists(st.tuples(keys, people), max_size=6), people)
def test_approvals_are_never_by_oneself(given: list[tuple[str, frozenset[str]]], own: frozenset[str]) -> None:
    by = replace(OWNER, actors=own)
    good = counted([word(key, actors) for key, actors in given], by)
    assert all(each.key_id != by.key_id and not each.actors & own for each in good)
    assert len({each.key_id for each in good}) == len(good)
    assert sum(len(each.actors) for each in good) == len(
        frozenset[str]().union(*(each.actors for each in good))
    )


@given(
    given=st.lists(st.tuples(keys, people), max_size=3),
    reviewed=st.integers(0, 150),
    approvals=st.integers(0, 3),
    actors_at_least=st.integers(0, 2),
    held=st.booleans(),
)
def test_a_gate_never_passes_with_a_condition_that_does_not(
    given: list[tuple[str, frozenset[str]]],
    reviewed: int,
    approvals: int,
    actors_at_least: int,
    *,
    held: bool,
) -> None:
    limits = GateLimits(reviewed_at_least=100, approvals=approvals)
    of = policy(gates={Phase.ENFORCED: limits}, actors_at_least=actors_at_least)
    context = GateContext(latest_at=NOW, approvals=[word(*each) for each in given], by=OWNER)
    at = state(phase=Phase.ADVISORY, held=held)
    gate = assess_gate(of, at, evidence(reviewed_totals(reviewed)), context, to=Phase.ENFORCED, now=NOW)
    passes = all(condition.outcome is PASS for condition in gate.conditions)
    assert (gate.outcome is PASS) is passes
