import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.assessment import Assessment, Facts, GuardrailOutcome
from app.domain.clock import to_us
from app.domain.drift import fold_weeks, limit_of, this_week
from app.domain.guardrail import advance
from app.domain.limits import Action, Guardrail, GuardrailLimits
from app.domain.phase import Phase
from app.domain.stream import StreamState, Tally
from tests.domain.making import START, evidence, policy, shadow_totals

DAY_US = 86_400_000_000
MARGIN, ALPHA = 0.05, 0.01


def facts(n: int, disagreed: int, *, days: float, **limits: Any) -> Facts:
    limited = policy(guardrails=GuardrailLimits(**limits))
    seen = evidence(shadow_totals(n, disagreed=disagreed))
    return Facts(limited, Phase.ENFORCED, seen, START + timedelta(days=days))


def looks(*seen: Facts) -> tuple[StreamState, list[Assessment]]:
    state, said = None, []
    for each in seen:
        state, assessment = advance(Guardrail.AGREEMENT_DRIFT, state, each)
        said.append(assessment)
    assert state is not None
    return state, said


def test_the_first_week_has_nothing_to_be_compared_with() -> None:
    _, (_, last) = looks(facts(1_000, 50, days=3), facts(5_000, 4_000, days=6.9))
    assert last.outcome is GuardrailOutcome.INSUFFICIENT
    assert "this one has 5000" in last.sentence


def test_a_week_that_disagrees_more_than_the_last_one_is_a_drift() -> None:
    state, (_, calm, last) = looks(
        facts(1_000, 50, days=6), facts(1_400, 70, days=8), facts(1_900, 220, days=9)
    )
    assert (calm.outcome, calm.n) == (GuardrailOutcome.OK, 400)
    assert (calm.limit, calm.rate) == pytest.approx((0.10, 0.05))
    assert (last.outcome, last.action, last.n) == (GuardrailOutcome.BREACH, Action.NOTIFY, 900)
    assert last.raised
    assert state.alarm is not None


def test_the_alarm_of_a_week_ends_with_it_and_its_share_is_the_next_reference() -> None:
    _, said = looks(
        facts(1_000, 50, days=6),
        facts(1_900, 220, days=9),
        facts(1_900, 220, days=15),
        facts(2_000, 237, days=16),
    )
    assert [one.outcome for one in said[1:]] == [
        GuardrailOutcome.BREACH,
        GuardrailOutcome.BREACH,
        GuardrailOutcome.OK,
    ]
    assert "the alarm of this week stands" in said[2].sentence
    assert said[3].limit == pytest.approx(170 / 900 + 0.05)


@pytest.mark.parametrize(("n", "expected"), [(299, None), (300, 0.05 + 30 / 300)])
def test_a_week_with_fewer_than_300_pairs_is_no_reference(n: int, expected: float | None) -> None:
    state, _ = looks(facts(n, 30, days=6), facts(n + 10, 30, days=8))
    assert limit_of(state, margin=MARGIN) == (None if expected is None else pytest.approx(expected))


def test_a_thin_week_leaves_the_reference_of_the_week_before() -> None:
    state, (*_, last) = looks(facts(1_000, 50, days=6), facts(1_100, 100, days=8), facts(1_200, 105, days=16))
    assert last.limit == pytest.approx(0.10)
    assert this_week(state) == (100, 5)


def test_weeks_without_a_look_are_skipped() -> None:
    state, _ = looks(facts(1_000, 50, days=6), facts(2_000, 100, days=40))
    assert this_week(state) == (1_000, 50)
    assert state.at_us == to_us(START + timedelta(days=40))


def test_a_changed_limit_begins_a_week_of_its_own() -> None:
    seen = facts(1_900, 220, days=9)
    state, _ = looks(facts(1_000, 50, days=6), seen, facts(1_900, 220, days=10, drift_limit=0.2))
    assert this_week(state) == (0, 0)
    assert limit_of(state, margin=0.1) is None


def test_where_every_pair_disagrees_it_cannot_become_worse() -> None:
    _, (_, last) = looks(facts(400, 400, days=6), facts(900, 900, days=8))
    assert last.outcome is GuardrailOutcome.OK


def test_counters_that_went_backwards_are_an_error() -> None:
    _, (_, last) = looks(facts(400, 40, days=6), facts(300, 40, days=8))
    assert last.outcome is GuardrailOutcome.ERROR


def test_without_news_a_drift_is_stale() -> None:
    _, (*_, last) = looks(facts(400, 20, days=6), facts(500, 25, days=8), facts(500, 25, days=11))
    assert last.outcome is GuardrailOutcome.STALE


counts = st.integers(0, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


@given(weeks=st.lists(counts, min_size=2, max_size=4), more=st.integers(1, 50))
def test_more_disagreement_this_week_never_improves_an_assessment(
    weeks: list[tuple[int, int]], more: int
) -> None:
    order = list(GuardrailOutcome)[:3]
    seen, n, bad = [], 0, 0
    for number, (gained, disagreed) in enumerate(weeks):
        n, bad = n + gained, bad + disagreed
        seen.append(facts(n, bad, days=7 * number + 1))
    worse = replace(
        seen[-1],
        evidence=evidence(shadow_totals(n, disagreed=min(bad + more, bad + weeks[-1][0] - weeks[-1][1]))),
    )
    (*_, before), (*_, after) = looks(*seen)[1], looks(*seen[:-1], worse)[1]
    if before.outcome in order:
        assert order.index(after.outcome) >= order.index(before.outcome)


def test_a_week_at_its_limit_alarms_falsely_one_time_in_a_hundred_at_most() -> None:
    """Two weeks, each at the very edge of what the week before allows; 2,000 pairs a week, 56 looks."""
    chance, streams, alarms = random.Random("drift"), 200, 0
    for _ in range(streams):
        state, share, n, bad = StreamState(1, "", 0), 0.10, 0, 0
        for look in range(3 * 56):
            if look and look % 56 == 0:
                seen, disagreed = this_week(state)
                share = disagreed / seen + MARGIN
            n, bad = n + 36, bad + sum(chance.random() < share for _ in range(36))
            state = fold_weeks(
                state, Tally(n, bad, MARGIN), started_us=0, now_us=look * DAY_US // 8, horizon_days=14
            )
            if state.streams and state.e_value >= 1 / ALPHA:
                alarms += 1
                break
    assert alarms <= ALPHA * streams + 3 * (ALPHA * streams) ** 0.5
