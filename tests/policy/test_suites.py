"""Are suites read strictly, and are the shipped ones what they claim to be?"""

import json
from pathlib import Path
from typing import Any

import pytest

from app.domain.decision import Decision
from app.errors import NotFound, PolicyError
from app.policy.rollouts import load_rollouts
from app.policy.suites import Suites, find_suites, fingerprint, load_suites

POLICIES = Path(__file__).parents[2] / "policies"
LEVELS = {"easy", "medium", "hard", "edge", "attack"}
TOPICS = {
    "unusual-hours", "failing", "incident", "sybil", "splitting", "audit-timing", "injection", "contractor",
    "break-glass", "threshold", "missing-trust", "trust-names", "long-text", "unicode", "secrets",
}  # fmt: skip
ACTIONS = {
    "read", "write", "commit", "deploy", "update_config", "admin_action", "delete_team", "grant_role",
}  # fmt: skip


def line(**changes: Any) -> dict[str, Any]:
    situation = {
        "action_type": "read",
        "actor_role": "member",
        "actor_id": "ann",
        "t3_tensor": {"competence": 0.8, "reliability": 0.8, "integrity": 0.8},
    }
    plain = {"id": "one", "tags": ["easy"], "situation": situation, "expected": "allow", "why": "Because."}
    return {**plain, **changes}


def written(directory: Path, *lines: dict[str, Any] | str, name: str = "mine") -> Path:
    folder = directory / "suites"
    folder.mkdir(exist_ok=True)
    texts = [each if isinstance(each, str) else json.dumps(each) for each in lines]
    (folder / f"{name}.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return folder / f"{name}.jsonl"


def asking(actor: str) -> dict[str, Any]:
    situation: dict[str, Any] = {**line()["situation"], "actor_id": actor}
    return situation


def test_a_line_is_a_case(tmp_path: Path) -> None:
    (case,) = load_suites([written(tmp_path, line(expected="deny", accept=["require_attestation"]))]).cases
    assert (case.id, case.tags, case.expected, case.why) == ("one", ("easy",), Decision.DENY, "Because.")
    assert case.accept == {Decision.REQUIRE_ATTESTATION}
    assert case.situation.actor_id == "ann"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        pytest.param(line(expected="alow"), "expected", id="no decision"),
        pytest.param(line(accept=["maybe"]), "accept", id="no decision accepted"),
        pytest.param(line(accept=["allow"]), "accept", id="accepts what it expects"),
        pytest.param(line(tags=[]), "tags", id="no tag"),
        pytest.param(line(id="Not a name"), "id", id="no name"),
        pytest.param(line(why=""), "why", id="no reason"),
        pytest.param(line(risk="low"), "risk", id="unknown field"),
        pytest.param({"id": "one"}, "tags", id="missing field"),
        pytest.param(line(situation={"action_type": "read"}), "situation.actor_role", id="no situation"),
        pytest.param(line(situation={**asking("bo"), "resource": 7}), "situation.resource", id="wrong type"),
        pytest.param(line(), "id", id="id twice"),
        pytest.param(line(id="two"), "situation", id="situation twice"),
        pytest.param("{", "", id="no JSON"),
        pytest.param("[" * 100_000, "", id="too deep"),
    ],
)
def test_a_mistake_is_named_by_file_line_and_field(
    tmp_path: Path, wrong: dict[str, Any] | str, field: str
) -> None:
    path = written(tmp_path, line(), "", wrong)
    with pytest.raises(PolicyError) as caught:
        load_suites([path])
    assert (caught.value.path, caught.value.line) == (str(path), 3)
    assert caught.value.key.partition("[")[0].rstrip(".") == field


def test_no_situation_stands_in_two_files(tmp_path: Path) -> None:
    paths = [written(tmp_path, line()), written(tmp_path, line(id="two"), name="other")]
    with pytest.raises(PolicyError, match=r"other.jsonl:1: situation: is that of 'one'"):
        load_suites(paths)


def test_line_separators_inside_a_text_end_no_line(tmp_path: Path) -> None:
    odd = line(situation={**asking("ann"), "details": "a\u2028b\u0085c"})
    path = written(tmp_path, json.dumps(odd, ensure_ascii=False))
    assert load_suites([path]).cases[0].situation.details == "a\u2028b\u0085c"


def test_suites_are_found_by_name_and_all_without_one(tmp_path: Path) -> None:
    first, second = written(tmp_path, line(), name="a"), written(tmp_path, line(), name="b")
    assert find_suites(tmp_path) == [first, second]
    assert find_suites(tmp_path, ["b", "b"]) == [second]
    with pytest.raises(NotFound, match=r"no suite '\.\./a'; there are "):
        find_suites(tmp_path, ["../a"])


def test_no_suite_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="holds no suite"):
        find_suites(tmp_path)
    with pytest.raises(PolicyError, match="holds no situation"):
        load_suites([written(tmp_path, "")])


def test_the_hash_moves_with_any_file_and_not_with_their_order(tmp_path: Path) -> None:
    paths = [
        written(tmp_path, line(), name="a"),
        written(tmp_path, line(id="two", situation=asking("bo")), name="b"),
    ]
    before = load_suites(paths).sha256
    assert load_suites(paths[::-1]).sha256 == fingerprint(tmp_path) == before
    assert load_suites(paths[:1]).sha256 != before
    written(tmp_path, line(expected="deny"), name="a")
    assert fingerprint(tmp_path) != before


@pytest.fixture(scope="module")
def shipped() -> Suites:
    return load_suites(find_suites(POLICIES))


def test_the_shipped_suites_cover_every_action_level_topic_and_decision(shipped: Suites) -> None:
    assert shipped.names == ("attacks", "core")
    assert len(shipped.cases) >= 72
    assert {case.situation.action_type for case in shipped.cases} == ACTIONS
    assert {tag for case in shipped.cases for tag in case.tags} == LEVELS | TOPICS
    for decision in Decision:
        assert sum(case.expected is decision for case in shipped.cases) >= 30


def test_every_shipped_case_has_one_level_and_one_sentence(shipped: Suites) -> None:
    for case in shipped.cases:
        assert len(LEVELS.intersection(case.tags)) == 1, case.id
        assert case.why.endswith("."), case.id


def test_every_risk_is_represented_among_the_shipped_cases(shipped: Suites) -> None:
    book = load_rollouts(POLICIES / "rollouts.yaml")
    assert {book.match(case.situation).name for case in shipped.cases} == set(book.names)


def test_no_attack_is_to_be_allowed(shipped: Suites) -> None:
    for case in shipped.cases:
        if "attack" in case.tags:
            assert not case.passes(Decision.ALLOW), case.id


def test_administration_is_never_to_be_allowed(shipped: Suites) -> None:
    for case in shipped.cases:
        if case.situation.action_type in ("admin_action", "delete_team", "grant_role"):
            assert not case.passes(Decision.ALLOW), case.id
            assert case.situation.actor_role == "admin" or case.expected is Decision.DENY, case.id


def test_too_little_trust_is_always_to_be_denied(shipped: Suites) -> None:
    untrusted = [case for case in shipped.cases if case.situation.trust.lowest < 0.2]
    assert untrusted
    assert {case.expected for case in untrusted} == {Decision.DENY}
