from typing import Any

import pytest

from app.policy.conditions import Condition, ConditionError

FACTS: dict[str, Any] = {
    "action_type": "deploy",
    "actor_role": "developer",
    "actor_id": "ada",
    "trust": {"competence": 0.8, "reliability": 0.9, "integrity": 1.0, "mean": 0.9, "lowest": 0.8},
    "resource": "env:staging",
    "recent_history": ["ok", "failed login"],
    "extra": {"region": "eu"},
}


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "text",
    [
        "resource.startsWith('env:staging')",
        "trust.mean >= 0.9 && trust.lowest > 0.5",
        "recent_history.exists(entry, entry.contains('failed'))",
        "has(extra.region) && extra.region == 'eu'",
        "actor_role in ['developer', 'maintainer'] // roles that build",
        'action_type == "deploy" || action_type == "trust.nothing"',
        "size(resource) == 11",
    ],
)
def test_a_condition_on_what_is_there_holds(text: str) -> None:
    assert Condition.compile(text).holds(FACTS)


@pytest.mark.parametrize(
    "text",
    [
        "team_context.contains('x')",
        "!team_context.contains('x')",
        "team_context != 'x'",
        "resource > 3",
        "resource",
        "1 / 0 == 1",
        "extra.other == 'x'",
        "resource.matches('[')",
    ],
)
def test_a_condition_that_errs_or_lacks_its_field_never_matches(text: str) -> None:
    assert not Condition.compile(text).holds(FACTS)


def test_an_evaluation_that_fails_raises() -> None:
    with pytest.raises(ConditionError):
        Condition.compile("team_context.contains('x')").evaluate(FACTS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resource ==", "Failed to parse"),
        ("true) || (true", "Failed to parse"),
        ("actor_rol == 'x'", "unknown name 'actor_rol'; did you mean 'actor_role'"),
        ("trust.meen > 0.5", "did you mean 'mean'"),
        ("resource.startWith('x')", "did you mean 'startsWith'"),
        ("lower(resource) == 'x'", "unknown function 'lower'"),
        ("true || " * 1000 + "true", "longer than"),
    ],
)
def test_a_condition_that_can_never_work_does_not_compile(text: str, says: str) -> None:
    with pytest.raises(ConditionError, match=says.replace("(", r"\(")):
        Condition.compile(text)


@pytest.mark.parametrize(
    "details",
    [nested(32), nested(1_000), "\ud800", 2**80, object(), {1: {2: 3}}],
    ids=["deep", "deeper", "surrogate", "large", "object", "keys"],
)
def test_hostile_facts_never_match_and_never_break_the_process(details: object) -> None:
    assert not Condition.compile("details == 'x'").holds({**FACTS, "details": details})


def test_facts_that_a_condition_does_not_name_cannot_disturb_it() -> None:
    assert Condition.compile("resource == 'env:staging'").holds({**FACTS, "details": nested(30_000)})
