"""Which verdicts may teach?"""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.domain.decision import Decision
from app.errors import Refused
from app.learning.corrections import Corrections, collect, read_examples, require_enough
from app.store.database import Database
from tests.learning.world import add_judge, add_verdicts, by, example, examples, undo, write_file


@pytest.fixture
def judged(database: Database) -> Database:
    """Ann and Bob are reviewers; Carl, an operator, is none."""
    add_judge(database, "ann", actors=("actor-7",))
    add_judge(database, "bob")
    add_judge(database, "carl", roles="operator")
    return database


def found(database: Database, rollout: str = "write", *, share: float = 1.0) -> Corrections:
    with database.read() as connection:
        return collect(connection, rollout, reviewer_share=share)


def test_a_verdict_teaches_its_decision_beside_the_legacy_engines(judged: Database) -> None:
    taught = replace(example(1, alarm=True), category="model_too_permissive", notes="stolen badge")
    add_verdicts(judged, taught)
    assert found(judged).examples == (taught,)
    assert found(judged).left_out == {}


def test_only_the_verdicts_of_the_rollout_teach(judged: Database) -> None:
    add_verdicts(judged, example(1))
    assert found(judged, "read").examples == ()
    assert len(found(judged, "all").examples) == 1


@pytest.mark.parametrize(
    ("judge", "changes", "reason"),
    [
        ("nobody", {}, "no reviewer's key"),
        ("carl", {}, "no reviewer's key"),
        ("bob", {"key_id": "bob"}, "own situation"),
        ("ann", {}, "own situation"),
        ("bob", {"source": "guess"}, "unknown source"),
        ("bob", {"kind": "picked"}, "unknown source"),
        ("bob", {"mode": "unstated"}, "unknown source"),
        ("bob", {"legacy_error": "timeout"}, "legacy engine failed"),
        ("bob", {"erased": True}, "situation erased"),
    ],
)
def test_a_verdict_without_provenance_never_teaches(
    judged: Database, judge: str, changes: dict[str, Any], reason: str
) -> None:
    add_verdicts(judged, *by(judge, example(7)), **changes)
    assert found(judged).examples == ()
    assert found(judged).left_out == {reason: 1}


def test_what_was_undone_never_teaches(judged: Database) -> None:
    add_verdicts(judged, example(1), example(2))
    undo(judged, example(1))
    assert [each.id for each in found(judged).examples] == ["d00002"]


def test_verdicts_that_contradict_each_other_are_dropped_and_counted(judged: Database) -> None:
    one = example(1, alarm=False)
    add_verdicts(judged, one, replace(one, id="other", decision=Decision.ALLOW), example(2))
    assert [each.id for each in found(judged).examples] == ["d00002"]
    assert found(judged).left_out == {"contradicted": 2}


def test_a_second_verdict_teaches_too_and_is_blind_whatever_the_review_was(judged: Database) -> None:
    add_verdicts(judged, example(1), source="second", mode="assisted")
    assert [each.mode for each in found(judged).examples] == ["blind"]


def test_one_situation_teaches_once(judged: Database) -> None:
    add_verdicts(judged, example(1), replace(example(1), id="e00001"))
    assert [each.id for each in found(judged).examples] == ["e00001"]
    assert found(judged).left_out == {"repeated": 1}


def test_no_reviewer_has_more_than_the_share(judged: Database) -> None:
    add_verdicts(judged, *by("ann", *map(example, range(10, 40))), *by("bob", *map(example, range(40, 50))))
    corrections = found(judged, share=0.5)
    assert Counter(each.judge for each in corrections.examples) == {"ann": 10, "bob": 10}
    assert corrections.left_out == {"reviewer has too many": 20}


def test_one_reviewer_alone_teaches_nothing_where_the_share_is_half(judged: Database) -> None:
    add_verdicts(judged, *map(example, range(10, 20)))
    assert found(judged, share=0.5).examples == ()


def test_no_actor_has_more_than_three_or_a_twentieth(judged: Database) -> None:
    add_verdicts(judged, *map(example, range(20, 40)))
    same = [example(number) for number in range(40, 50)]
    add_verdicts(judged, *(replace(each, situation=replace(each.situation, actor_id="x")) for each in same))
    counted = Counter(each.actor for each in found(judged).examples)
    assert counted["x"] == 3
    assert found(judged).left_out == {"actor has too many": 7}


@pytest.mark.parametrize("count", [0, 49])
def test_below_fifty_it_is_refused_with_the_number(count: int) -> None:
    with pytest.raises(Refused, match=f"^{count} examples may teach, and 50 are needed"):
        require_enough(Corrections(examples(count), {}))


def test_fifty_are_enough() -> None:
    require_enough(Corrections(examples(50), {}))


def test_a_file_of_examples_is_read(tmp_path: Path) -> None:
    [read] = read_examples(write_file(tmp_path / "few.jsonl", (example(3),)))
    assert (read.situation, read.decision, read.legacy) == (
        example(3).situation,
        example(3).decision,
        example(3).legacy,
    )
    assert read.actor is None, "a generated actor is nobody"


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "{}",
        '{"id": 1, "situation": {}, "decision": "deny", "legacy": "deny"}',
        json.dumps({"id": "x"}),
        "\udcff",
    ],
)
def test_a_line_that_is_no_example_is_named(tmp_path: Path, line: str) -> None:
    file = write_file(tmp_path / "few.jsonl", (example(3),))
    file.write_bytes(f"{file.read_text()}\n{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(Refused, match=r"few\.jsonl:2: "):
        read_examples(file)


def test_what_a_line_lacks_is_said(tmp_path: Path) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text('{"id": "x"}\n')
    with pytest.raises(Refused, match="'situation' is missing"):
        read_examples(file)
