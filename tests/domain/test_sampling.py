import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.decision import Decision
from app.domain.sampling import (
    Judged,
    ReviewMode,
    Stratum,
    doubled,
    drawn,
    recorded_draw,
    review_draw,
    review_mode,
    review_rates,
    smallest_inclusion,
    stratified_rate,
    stratum_of,
)

sizes = st.integers(0, 100_000)
rates = st.floats(0.001, 1)
IDS = [f"decision-{number}" for number in range(20_000)]


@given(rate=st.floats(0, 1), decision_id=st.text(max_size=40))
def test_what_is_drawn_stays_drawn_at_any_higher_rate(rate: float, decision_id: str) -> None:
    assert drawn(decision_id, rate) == drawn(decision_id, rate)
    if drawn(decision_id, rate):
        assert drawn(decision_id, min(rate + 0.1, 1))


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 1.0])
def test_the_share_that_is_drawn_is_the_rate(rate: float) -> None:
    assert sum(drawn(name, rate) for name in IDS) / len(IDS) == pytest.approx(rate, abs=0.01)


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_a_share_of_the_reviews_is_judged_twice_whichever_were_drawn_or_blind(rate: float) -> None:
    chosen = [name for name in IDS if drawn(name, 0.25) and review_mode(name) is ReviewMode.BLIND]
    assert sum(doubled(name, rate) for name in chosen) / len(chosen) == pytest.approx(rate, abs=0.025)


def test_half_of_the_reviews_are_blind_whether_or_not_they_were_drawn() -> None:
    chosen = [name for name in IDS if drawn(name, 0.25)]
    blind = sum(review_mode(name) is ReviewMode.BLIND for name in chosen)
    assert blind / len(chosen) == pytest.approx(0.5, abs=0.03)


def test_half_of_the_budget_goes_to_the_few_disagreements() -> None:
    chosen = review_rates(0.05, agreed=9_000, disagreed=1_000)
    of_disagreements = 0.1 * chosen[Stratum.DISAGREEMENT].inclusion_probability
    of_agreements = 0.9 * chosen[Stratum.AGREEMENT].inclusion_probability
    assert of_disagreements == pytest.approx(0.025, rel=0.2)
    assert of_agreements == pytest.approx(0.025, rel=0.2)


@given(rate=rates, agreed=sizes, disagreed=sizes)
def test_the_budget_is_kept_but_for_rounding(rate: float, agreed: int, disagreed: int) -> None:
    chosen = review_rates(rate, agreed=agreed, disagreed=disagreed)
    share = (disagreed + 1) / (agreed + disagreed + 2)
    spent = (
        share * chosen[Stratum.DISAGREEMENT].inclusion_probability
        + (1 - share) * chosen[Stratum.AGREEMENT].inclusion_probability
    )
    assert rate / 1.2 <= spent <= rate * 1.2


@given(rate=rates, agreed=sizes, disagreed=sizes)
def test_no_stratum_is_drawn_less_often_than_the_smallest_inclusion(
    rate: float, agreed: int, disagreed: int
) -> None:
    chosen = review_rates(rate, agreed=agreed, disagreed=disagreed)
    for draw in chosen.values():
        assert smallest_inclusion(rate) <= draw.inclusion_probability <= 1


@given(agreed=sizes, disagreed=sizes, decision_id=st.text(max_size=20))
def test_a_rate_of_one_draws_everything(agreed: int, disagreed: int, decision_id: str) -> None:
    draw = review_draw(
        decision_id, rate=1.0, model=Decision.ALLOW, legacy=Decision.DENY, agreed=agreed, disagreed=disagreed
    )
    assert draw is not None
    assert draw.inclusion_probability == smallest_inclusion(1.0) == 1.0


@given(decision_id=st.text(max_size=20))
def test_a_rate_of_nothing_draws_nothing(decision_id: str) -> None:
    assert (
        review_draw(decision_id, rate=0.0, model=Decision.ALLOW, legacy=Decision.DENY, agreed=0, disagreed=0)
        is None
    )


@given(rate=rates, agreed=sizes, disagreed=sizes, agrees=st.booleans())
def test_a_recorded_draw_is_the_draw_itself(
    rate: float, agreed: int, disagreed: int, *, agrees: bool
) -> None:
    chosen = review_rates(rate, agreed=agreed, disagreed=disagreed)
    draw = chosen[Stratum.AGREEMENT if agrees else Stratum.DISAGREEMENT]
    assert recorded_draw(draw.inclusion_probability, agrees=agrees) == draw


@pytest.mark.parametrize("model", Decision)
@pytest.mark.parametrize("legacy", Decision)
def test_the_stratum_is_whether_the_raw_answers_are_equal(model: Decision, legacy: Decision) -> None:
    assert (stratum_of(model, legacy) is Stratum.AGREEMENT) is (model is legacy)


def test_the_estimate_weighs_each_stratum_by_what_it_stands_for() -> None:
    assert stratified_rate([Judged(900, 30, 0), Judged(100, 30, 15)]) == pytest.approx(0.05)
    assert stratified_rate([Judged(900, 30, 3), Judged(100, 0, 0)]) == pytest.approx(0.1)
    assert stratified_rate([Judged(900, 0, 0)]) is None
