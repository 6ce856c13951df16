"""Is what is held out unknown to what was taught?"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.situation import Situation
from app.errors import Refused
from app.learning.folds import FOLDS, folds, groups, templates
from tests.learning.world import situation


def say(number: int, text: str) -> Situation:
    return situation(number, alarm=False, details=text)


def test_examples_of_one_actor_stay_together() -> None:
    asked = [say(number, "abcdefgh"[number] * 5) for number in range(8)]
    found = groups(asked, ["ann", "bob", "ann", "carl", "dora", "bob", "eve", "fay"])
    assert found[0] == found[2]
    assert found[1] == found[5]
    assert len(set(found)) == 6


def test_an_actor_of_nobody_holds_nothing_together() -> None:
    asked = [situation(number, alarm=False, actor="same") for number in range(4)]
    assert len(set(groups(asked, [None] * 4))) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Deploy of build 4711 failed twice.", "deploy of build 12 failed twice"),
        ("ticket OPS-12 asks for access to the vault", "Ticket SEC-99 asks for access to the vault!"),
        ("the mobile team lost a laptop on the train", "the billing team lost a laptop on the train"),
        ("nothing new here. the token was leaked", "a long story about lunch; the token was leaked"),
    ],
)
def test_examples_that_share_a_phrase_stay_together(one: str, other: str) -> None:
    found = groups([say(1, one), say(2, other), say(3, "quite another matter altogether")], [None] * 3)
    assert found[0] == found[1] != found[2]


def test_a_phrase_is_found_in_any_field() -> None:
    asked = [
        situation(1, alarm=False, details={"note": ["the badge was stolen"]}),
        situation(2, alarm=False, details=None, recent_history=["all quiet", "The badge was stolen"]),
        situation(3, alarm=False, details=None, remark="the badge was stolen"),
    ]
    assert len(set(groups(asked, [None] * 3))) == 1


def test_boilerplate_does_not_make_all_one_group() -> None:
    asked = [say(number, f"{'abcdefghijklmnopqrst'[number] * 6}. sent from my phone") for number in range(20)]
    assert len(set(groups(asked, [None] * 20))) == 20


def test_numbers_and_ids_alone_are_no_phrase() -> None:
    assert templates([say(1, "4711. OPS-12; 9f86d081")]) == [[]]


@given(st.lists(st.integers(0, 30), min_size=40, max_size=120))
def test_folds_are_disjoint_by_group(group_of: list[int]) -> None:
    sizes = Counter(group_of)
    if len(sizes) < 2 * FOLDS or max(sizes.values()) > len(group_of) / 2:
        with pytest.raises(Refused):
            folds(group_of)
        return
    found = folds(group_of)
    assert set(found) == set(range(FOLDS))
    for group in sizes:
        assert len(set(found[np.array(group_of) == group])) == 1


def test_folds_are_even() -> None:
    assert set(Counter(folds([number // 2 for number in range(100)]).tolist()).values()) == {20}


@pytest.mark.parametrize("group_of", [[], list(range(9)) * 9, [0] * 60 + list(range(1, 41))])
def test_too_few_groups_are_refused(group_of: list[int]) -> None:
    with pytest.raises(Refused, match="groups by wording and actor"):
        folds(group_of)


def test_the_order_of_examples_does_not_change_who_stays_together() -> None:
    asked = [
        say(1, "the badge was stolen"),
        say(2, "something else entirely"),
        say(3, "the badge was stolen"),
    ]
    actors = ["ann", "ann", "bob"]
    assert len(set(groups(asked, actors))) == 1
    assert len(set(groups([replace(each) for each in reversed(asked)], actors[::-1]))) == 1


def test_who_says_all_the_same_stays_together_however_many_do() -> None:
    asked = [say(number, "the badge was stolen") for number in range(30)]
    assert len(set(groups(asked, [None] * 30))) == 1
