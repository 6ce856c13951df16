import asyncio
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.decision import Decision, LegacyAnswer
from app.domain.situation import Situation, Trust
from app.engines.legacy.rules import RulesEngine
from app.errors import PolicyError

POLICIES = Path(__file__).parents[3] / "policies"
SHIPPED = RulesEngine((POLICIES / "legacy.yaml").read_text())
ALLOW, ATTEST, DENY = Decision.ALLOW, Decision.REQUIRE_ATTESTATION, Decision.DENY


def decide(engine: RulesEngine, situation: Situation) -> LegacyAnswer:
    return asyncio.run(engine.decide(situation))


def asked(action: str, role: str, *, trust: float = 0.8, **known: Any) -> Situation:
    return Situation(action, role, "ada", Trust(trust, trust, trust), **known)


def rules(*entries: str) -> RulesEngine:
    return RulesEngine("rules:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries))


@pytest.mark.parametrize(
    ("action", "role", "resource", "trust", "decision"),
    [
        ("read", "member", "docs/public/readme.md", 0.8, ALLOW),
        ("read", "viewer", "docs/public/readme.md", 0.3, ALLOW),
        ("read", "viewer", "docs/internal/plan.md", 0.8, ATTEST),
        ("read", "member", "docs/internal/plan.md", 0.5, ATTEST),
        ("read", "member", "docs/public/../internal/plan.md", 0.9, DENY),
        ("read", "member", "secrets/key", 1.0, DENY),
        ("read", "admin", "secrets/key", 1.0, ATTEST),
        ("read", "stranger", "docs/public/readme.md", 1.0, DENY),
        ("write", "developer", "repo/x", 0.7, ALLOW),
        ("write", "viewer", "repo/x", 1.0, DENY),
        ("commit", "developer", "repo/feature", 0.7, ALLOW),
        ("commit", "developer", "repo/main", 0.9, ATTEST),
        ("deploy", "developer", "env:staging", 0.7, ALLOW),
        ("deploy", "developer", "env:production", 0.9, ATTEST),
        ("deploy", "maintainer", "env:production", 0.9, ALLOW),
        ("deploy", "agent", "env:staging", 1.0, DENY),
        ("update_config", "operator", "app/limits", 0.85, ALLOW),
        ("update_config", "developer", "app/limits", 0.85, ATTEST),
        ("delete_team", "developer", "team:core", 1.0, DENY),
        ("delete_team", "admin", "team:core", 1.0, ATTEST),
        ("grant_role", "maintainer", "role:admin", 1.0, DENY),
        ("launch_rocket", "developer", "pad", 1.0, DENY),
        ("launch_rocket", "admin", "pad", 1.0, ATTEST),
        ("read", "admin", "docs/public/readme.md", 0.1, DENY),
    ],
)
def test_the_shipped_policy_is_sensible(
    action: str, role: str, resource: str, trust: float, decision: Decision
) -> None:
    answer = decide(SHIPPED, asked(action, role, trust=trust, resource=resource))
    assert (answer.decision, answer.error) == (decision, None)
    assert answer.rule


def test_the_first_rule_that_fits_decides_and_is_named() -> None:
    engine = rules(
        "name: other-role, actions: [read], roles: [admin], decision: deny",
        "name: other-action, actions: [write], decision: deny",
        "name: high, actions: [read], when: trust.mean > 0.9, decision: allow",
        "name: rest, actions: ['*'], decision: require_attestation",
        "name: late, actions: [read], decision: allow",
    )
    assert decide(engine, asked("read", "x", trust=1.0)).rule == "high"
    answer = decide(engine, asked("read", "x"))
    assert (answer.rule, answer.decision) == ("rest", ATTEST)


def test_what_no_rule_names_is_denied_by_default() -> None:
    answer = decide(rules("name: a, actions: [read], roles: [x], decision: allow"), asked("read", "y"))
    assert (answer.decision, answer.rule, answer.error) == (DENY, "default", None)


def test_the_order_holds_across_many_rules() -> None:
    entries = [
        f"name: r{at}, actions: [read], when: resource == '{at}', decision: allow" for at in range(100)
    ]
    engine = rules(*entries)
    found = [decide(engine, asked("read", "x", resource=str(at))).rule for at in range(101)]
    assert found == [f"r{at}" for at in range(100)] + ["default"]


def test_conditions_nested_to_the_limit_still_stand_side_by_side() -> None:
    deep = "(" * 60 + "resource == 'no'" + ")" * 60
    entries = [f'name: r{at}, actions: [read], when: "{deep}", decision: deny' for at in range(20)]
    answer = decide(rules(*entries, "name: last, actions: [read], decision: allow"), asked("read", "x"))
    assert (answer.rule, answer.error) == ("last", None)


def test_absent_fields_are_empty_so_that_no_condition_needs_a_guard() -> None:
    names = (
        "resource",
        "team_context",
        "timestamp",
        "recent_history",
        "identity_metrics",
        "details",
        "extra",
    )
    text = " && ".join(f"size({name}) == 0" for name in names)
    assert (
        decide(rules(f'name: a, actions: [read], when: "{text}", decision: allow'), asked("read", "x")).rule
        == "a"
    )


def test_a_history_is_one_text_however_it_was_sent() -> None:
    engine = rules("name: a, actions: [read], when: recent_history.contains('failed'), decision: deny")
    for history in ("it failed", ("ok", "it failed")):
        assert decide(engine, asked("read", "x", recent_history=history)).rule == "a"


@pytest.mark.parametrize(
    "condition", ["details.nothing", "1 / 0 == 1", "size(details)", "details.contains('x')"]
)
def test_an_erring_condition_fails_the_engine_and_never_falls_through_to_an_allow(condition: str) -> None:
    engine = rules(
        f'name: odd, actions: [read], when: "{condition}", decision: deny',
        "name: open, actions: [read], decision: allow",
    )
    answer = decide(engine, asked("read", "x", details={"a": 1}))
    assert (answer.decision, answer.rule) == (DENY, None)
    assert answer.failed


def test_a_condition_cannot_break_out_of_its_rule() -> None:
    engine = RulesEngine(
        "rules:\n"
        "  - name: a\n    actions: [read]\n    when: \"resource == 'x' // ) ? 5 : (\"\n    decision: deny\n"
        "  - name: b\n    actions: [read]\n    decision: allow\n"
    )
    assert [decide(engine, asked("read", "x", resource=it)).rule for it in ("x", "y")] == ["a", "b"]


@pytest.mark.parametrize(
    ("entry", "key", "says"),
    [
        ("name: a, actions: [x]", "rules[1].decision", "is required"),
        ("name: a, actions: [x], decision: alow", "rules[1].decision", "did you mean 'allow'"),
        ("name: a, actions: [x], decision: allow, wen: 'true'", "rules[1].wen", "did you mean 'when'"),
        (
            "name: a, actions: [x], decision: allow, when: 'true) || (true'",
            "rules[1].when",
            "Failed to parse",
        ),
        ("name: a, actions: [x], decision: allow, when: actor == 'x'", "rules[1].when", "unknown name"),
        ("name: a, actions: [], decision: allow", "rules[1].actions", "at least one"),
        ("name: first, actions: [x], decision: allow", "rules[1].name", "is taken"),
        ("name: default, actions: [x], decision: allow", "rules[1].name", "is taken"),
    ],
)
def test_a_mistake_is_reported_with_file_line_and_key(entry: str, key: str, says: str) -> None:
    text = f"rules:\n  - {{name: first, actions: [x], decision: deny}}\n  - {{{entry}}}\n"
    with pytest.raises(PolicyError, match=says.replace("(", r"\(")) as caught:
        RulesEngine(text, path="policies/legacy.yaml")
    assert (caught.value.path, caught.value.line, caught.value.key) == ("policies/legacy.yaml", 3, key)


def test_callers_cannot_grow_what_the_engine_remembers() -> None:
    engine = rules("name: a, actions: [read, '*'], roles: [x], decision: allow")
    for at in range(50):
        decide(engine, asked(f"action-{at}", f"role-{at}"))
        decide(engine, asked("*", "*"))
    assert len(engine._chains) == 1


texts = st.text(st.characters(exclude_categories=[]), max_size=30)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(leaves, lambda of: st.lists(of, max_size=3) | st.dictionaries(texts, of, max_size=3))
shares = st.floats(0, 1)


@given(
    st.builds(
        Situation,
        action_type=st.sampled_from(["read", "write", "deploy"]) | texts,
        actor_role=st.sampled_from(["member", "admin"]) | texts,
        actor_id=texts,
        trust=st.builds(Trust, shares, shares, shares),
        resource=st.none() | texts,
        recent_history=st.none() | texts | st.lists(texts, max_size=3).map(tuple),
        identity_metrics=st.none() | st.dictionaries(texts, values, max_size=3),
        details=values,
        extra=st.none() | st.dictionaries(texts, values, max_size=3),
    )
)
def test_no_situation_raises_and_a_failure_is_a_deny(situation: Situation) -> None:
    answer = decide(SHIPPED, situation)
    assert answer.decision is DENY or not answer.failed


async def test_a_typical_decision_takes_well_under_60_microseconds() -> None:
    situation = asked(
        "write", "member", resource="repo/x", details={"lines": 10}, timestamp="2026-01-01T00:00:00Z"
    )
    rounds, fastest = 200, float("inf")
    for _ in range(20):
        since = perf_counter()
        for _ in range(rounds):
            await SHIPPED.decide(situation)
        fastest = min(fastest, (perf_counter() - since) / rounds)
    assert fastest < 60e-6
