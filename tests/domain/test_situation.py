from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.situation import Trust, canonical, facts, parse_situation, to_document
from app.errors import InvalidSituation

OLD = ("competence", "reliability", "integrity")
NEW = ("talent", "training", "temperament")
LEAST = {
    "action_type": "read",
    "actor_role": "developer",
    "actor_id": "alice",
    "t3_tensor": {"competence": 0.8, "reliability": 0.9, "integrity": 0.95},
}

names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30).filter(str.strip)
shares = st.floats(0, 1)
leaves = (
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10)
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
documents = st.fixed_dictionaries(
    {
        "action_type": names,
        "actor_role": names,
        "actor_id": names,
        "t3_tensor": st.fixed_dictionaries(dict.fromkeys(OLD, shares)),
    },
    optional={
        "resource": st.text(max_size=20),
        "team_context": st.text(max_size=20),
        "timestamp": st.text(max_size=20),
        "recent_history": st.text(max_size=20) | st.lists(st.text(max_size=10), max_size=3),
        "identity_metrics": st.dictionaries(st.text(max_size=5), leaves, max_size=3),
        "details": trees,
        "ticket": trees,
        "trust": trees,
    },
)


def wrong_fields(raw: object) -> set[str]:
    with pytest.raises(InvalidSituation) as caught:
        parse_situation(raw)
    return {field for field, _ in caught.value.fields}


@given(documents)
def test_a_situation_comes_back_from_its_document(raw: dict[str, Any]) -> None:
    situation = parse_situation(raw)
    assert parse_situation(to_document(situation)) == situation


@given(documents)
def test_both_names_of_the_trust_tensor_are_one_situation(raw: dict[str, Any]) -> None:
    renamed = {**raw, "t3_tensor": {new: raw["t3_tensor"][old] for old, new in zip(OLD, NEW, strict=True)}}
    assert parse_situation(renamed) == parse_situation(raw)
    assert canonical(parse_situation(renamed)) == canonical(parse_situation(raw))


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(documents)
def test_the_canonical_form_does_not_know_the_order(raw: dict[str, Any]) -> None:
    assert canonical(parse_situation(reordered(raw))) == canonical(parse_situation(raw))


@given(documents, documents)
def test_different_situations_have_different_canonical_forms(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    same = to_document(parse_situation(one)) == to_document(parse_situation(other))
    if not same:
        assert canonical(parse_situation(one)) != canonical(parse_situation(other))


@given(documents)
def test_null_counts_as_absent(raw: dict[str, Any]) -> None:
    nulls = dict.fromkeys(("resource", "recent_history", "identity_metrics", "details", "unheard_of"))
    assert parse_situation({**nulls, **raw}) == parse_situation(raw)


def test_unknown_members_are_kept() -> None:
    situation = parse_situation({**LEAST, "ticket": "OPS-7", "urgency": 3})
    assert situation.extra == {"ticket": "OPS-7", "urgency": 3}
    assert parse_situation(LEAST).extra is None


def test_every_wrong_field_is_named_at_once() -> None:
    raw = {
        "action_type": "",
        "actor_role": 7,
        "t3_tensor": {"competence": 1.2, "reliability": True, "charm": 0.5},
        "resource": ["a"],
        "recent_history": [1],
        "identity_metrics": "high",
    }
    assert wrong_fields(raw) == {
        "action_type",
        "actor_role",
        "actor_id",
        "t3_tensor.competence",
        "t3_tensor.reliability",
        "t3_tensor.integrity",
        "t3_tensor.charm",
        "resource",
        "recent_history",
        "identity_metrics",
    }


@pytest.mark.parametrize("missing", LEAST)
def test_each_required_field_is_required(missing: str) -> None:
    assert wrong_fields({name: value for name, value in LEAST.items() if name != missing}) == {missing}


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf"), "0.5", True, None])
def test_trust_is_a_number_from_0_to_1(value: object) -> None:
    tensor = {"competence": value, "reliability": 0.5, "integrity": 0.5}
    assert wrong_fields({**LEAST, "t3_tensor": tensor}) == {"t3_tensor.competence"}


@pytest.mark.parametrize(
    "tensor", [[0.1, 0.2, 0.3], 0.5, {"competence": 0.5, "training": 0.5, "integrity": 0.5}]
)
def test_a_tensor_of_another_form_or_of_both_namings_is_refused(tensor: object) -> None:
    assert wrong_fields({**LEAST, "t3_tensor": tensor}) == {"t3_tensor"}


@pytest.mark.parametrize("raw", [None, [], "read", 7])
def test_only_an_object_is_a_situation(raw: object) -> None:
    assert wrong_fields(raw) == {""}


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "\x00"])
def test_a_name_holds_no_control_characters(name: str) -> None:
    assert wrong_fields({**LEAST, "actor_id": name}) == {"actor_id"}


def test_a_situation_nested_too_deeply_is_refused() -> None:
    deep: object = 1
    for _ in range(2_000):
        deep = [deep]
    assert wrong_fields({**LEAST, "details": deep, "more": deep}) == {"details", "more"}


def test_a_name_has_an_end() -> None:
    assert wrong_fields({**LEAST, "actor_id": "a" * 257}) == {"actor_id"}
    assert parse_situation({**LEAST, "actor_id": "a" * 256}).actor_id == "a" * 256


@given(documents)
def test_conditions_see_every_field_under_one_name(raw: dict[str, Any]) -> None:
    seen = facts(parse_situation(raw))
    assert seen["action_type"] == raw["action_type"]
    assert seen["trust"]["competence"] == raw["t3_tensor"]["competence"]
    assert seen["trust"]["lowest"] == min(raw["t3_tensor"].values())
    assert seen["extra"] == {name: raw[name] for name in ("ticket", "trust") if name in raw}
    assert "t3_tensor" not in seen
    for name in ("resource", "team_context", "timestamp", "details"):
        assert (name in seen) is (name in raw)


def test_an_extra_member_cannot_stand_in_for_a_known_fact() -> None:
    seen = facts(parse_situation({**LEAST, "trust": {"mean": 1.0}, "extra": "x"}))
    assert seen["trust"]["mean"] == pytest.approx(0.8833, abs=1e-4)
    assert seen["extra"] == {"trust": {"mean": 1.0}, "extra": "x"}


def test_trust_has_a_mean_and_a_weakest_part() -> None:
    trust = Trust(0.9, 0.6, 0.3)
    assert trust.mean == pytest.approx(0.6)
    assert trust.lowest == 0.3
