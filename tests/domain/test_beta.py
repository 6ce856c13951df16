import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from app.domain.beta import log_beta, log_share_below

shapes = st.floats(0.5, 5_000)


@given(x=st.floats(0.0005, 0.9995), a=shapes, b=shapes)
def test_the_incomplete_beta_is_that_of_the_reference(x: float, a: float, b: float) -> None:
    expected = float(special.betainc(a, b, x))
    if expected < 1e-290:  # the reference underflows where the logarithm does not
        assert log_share_below(x, a, b) < math.log(1e-280)
    else:
        assert log_share_below(x, a, b) == pytest.approx(math.log(expected), rel=1e-7, abs=1e-8)


@given(a=shapes, b=shapes)
def test_the_beta_function_is_that_of_the_reference(a: float, b: float) -> None:
    assert log_beta(a, b) == pytest.approx(float(special.betaln(a, b)), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("n", [10**6, 10**9])
def test_huge_counts_neither_overflow_nor_take_for_ever(n: int) -> None:
    assert log_share_below(0.01, 0.5 + 0.02 * n, 0.5 + 0.98 * n) < -1_000
    assert log_share_below(0.04, 0.5 + 0.02 * n, 0.5 + 0.98 * n) == pytest.approx(0.0, abs=1e-9)
    assert log_share_below(0.5, 0.5 * n, 0.5 * n) == pytest.approx(math.log(0.5), abs=1e-4)
