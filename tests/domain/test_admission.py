from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.admission import ALWAYS, Heard, is_within_caps


@pytest.mark.parametrize(
    ("heard", "share", "admitted"),
    [
        pytest.param(Heard(), 0.05, True, id="the first"),
        pytest.param(Heard(2, 2, 2, 1), 0.05, True, id="three are always"),
        pytest.param(Heard(3, 3, 3, 1), 0.05, False, id="the fourth of four"),
        pytest.param(Heard(78, 3, 78, 1), 0.05, False, id="the fourth of 79"),
        pytest.param(Heard(79, 3, 79, 1), 0.05, True, id="the fourth of 80"),
        pytest.param(Heard(500, 0, 500, 19), 0.05, True, id="too few keys to share among"),
        pytest.param(Heard(500, 0, 25, 20), 0.05, False, id="a key's share among many"),
        pytest.param(Heard(500, 0, 24, 20), 0.05, True, id="a key within its share"),
        pytest.param(Heard(900, 900, 900, 1), 1.0, True, id="all of it"),
    ],
)
def test_an_actor_or_key_has_three_or_its_share(heard: Heard, share: float, *, admitted: bool) -> None:
    assert is_within_caps(heard, share) is admitted


@given(
    share=st.floats(0.001, 1.0),
    asking=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), max_size=300),
)
def test_in_no_order_of_arrival_does_an_actor_exceed_its_share(
    share: float, asking: list[tuple[int, int]]
) -> None:
    actors: Counter[int] = Counter()
    keys: Counter[int] = Counter()
    for actor, key in asking:
        if is_within_caps(Heard(actors.total(), actors[actor], keys[key], len(keys)), share):
            actors[actor] += 1
            keys[key] += 1
            assert actors[actor] <= max(ALWAYS, share * actors.total())
