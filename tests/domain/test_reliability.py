from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.decision import Decision
from app.domain.reliability import ac1, raw_agreement

ALLOW, ATTEST, DENY = Decision

cells = st.dictionaries(
    st.sampled_from(list(product(Decision, Decision))), st.integers(1, 10_000), min_size=1
)


def kappa(pairs: dict[tuple[Decision, Decision], int]) -> float:
    """Cohen's, by which AC1 is measured."""
    n = sum(pairs.values())
    agreed = sum(pairs.get((decision, decision), 0) for decision in Decision) / n
    chance = sum(
        sum(m for (first, _), m in pairs.items() if first is decision)
        * sum(m for (_, second), m in pairs.items() if second is decision)
        for decision in Decision
    ) / (n * n)
    return (agreed - chance) / (1 - chance)


def test_agreement_of_95_percent_with_3_percent_positives_is_ac1_95_where_kappa_is_14() -> None:
    pairs = {(ALLOW, ALLOW): 945, (ALLOW, DENY): 25, (DENY, ALLOW): 25, (DENY, DENY): 5}
    assert raw_agreement(pairs) == 0.95
    assert ac1(pairs) == pytest.approx(0.95, abs=0.005)
    assert kappa(pairs) == pytest.approx(0.14, abs=0.005)


def test_a_table_worked_by_hand() -> None:
    pairs = {(ALLOW, ALLOW): 5, (ATTEST, DENY): 2, (DENY, DENY): 3}
    # pi = .5, .1, .4; p_e = (.25 + .09 + .24) / 2 = .29; p_a = .8
    assert ac1(pairs) == pytest.approx((0.8 - 0.29) / 0.71)


def test_without_pairs_nobody_agrees_or_disagrees() -> None:
    assert (raw_agreement({}), ac1({})) == (None, None)


@given(cells)
def test_ac1_lies_between_minus_a_half_and_the_raw_agreement_and_is_1_only_where_all_agree(
    pairs: dict[tuple[Decision, Decision], int],
) -> None:
    agreed, value = raw_agreement(pairs), ac1(pairs)
    assert agreed is not None
    assert value is not None
    assert -0.5 - 1e-9 <= value <= agreed + 1e-9
    assert (value == 1) == (agreed == 1)


@given(cells)
def test_it_does_not_matter_who_was_first(pairs: dict[tuple[Decision, Decision], int]) -> None:
    turned = {(second, first): n for (first, second), n in pairs.items()}
    assert ac1(turned) == pytest.approx(ac1(pairs))
