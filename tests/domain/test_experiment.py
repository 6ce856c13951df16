"""Does the comparison of two versions keep its promises?"""

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisory import Advisory, Outcome
from app.domain.condition import GateOutcome
from app.domain.counters import Metric
from app.domain.decision import Decision, LegacyAnswer
from app.domain.evidence import Evidence
from app.domain.experiment import (
    WORSE_BELOW,
    Versions,
    agreement_counts,
    assess_candidate,
    paired,
    tally,
    verdict_counts,
)
from app.domain.gate import Gate, GateContext
from app.domain.limits import GateLimits, Risk
from app.domain.paired import Pairs, difference, log_wealth, needed, proof, upper_difference
from app.domain.phase import Phase
from app.domain.rollout import Comparison, RolloutPolicy, RolloutState
from app.domain.sampling import Draw, Stratum
from tests.domain.making import NOW

ALPHA = 0.05
PASS, FAIL, INSUFFICIENT = GateOutcome.PASS, GateOutcome.FAIL, GateOutcome.INSUFFICIENT

POLICY = RolloutPolicy("read", ("read",), Risk.LOW, Phase.ENFORCED, review_rate=1.0)
STATE = RolloutState(
    "read",
    Phase.ENFORCED,
    1.0,
    revision=3,
    epoch=2,
    epoch_started_at=NOW - timedelta(days=9),
    version="v1",
    candidate="v2",
    candidate_mode=Comparison.BOTH,
    candidate_since=NOW - timedelta(days=2),
)
ALIKE = {
    (Metric.PAIRED, "agree:both"): 400,
    (Metric.PAIRED, "verdict:both:agreement:0"): 400,
}


def evidence(version: str, totals: Mapping[Any, int], *, independent: bool = True) -> Evidence:
    return Evidence("read", version, 2, STATE.epoch_started_at, independent, totals)


def judged(
    totals: Mapping[Any, int],
    *,
    policy: RolloutPolicy = POLICY,
    state: RolloutState = STATE,
    active: Evidence | None = None,
    independent: bool = True,
    investigated: bool = False,
) -> Gate:
    versions = Versions(active or evidence("v1", {}), evidence("v2", totals, independent=independent))
    return assess_candidate(policy, state, versions, GateContext(), investigated=investigated, now=NOW)


def outcome(gate: Gate, name: str) -> GateOutcome:
    [found] = [condition.outcome for condition in gate.conditions if condition.name == name]
    return found


def test_the_wealth_is_the_formulas() -> None:
    a, c, t, d = 3, 2, 10, 0.05
    wealth = sum(
        (1 + x * (d - 1)) ** a * (1 + x * (d + 1)) ** c * (1 + x * d) ** t
        for x in (0.15, 0.3, 0.45, 0.6, 0.8)
    )
    assert log_wealth([Pairs(a, c, t)], d) == pytest.approx(math.log(wealth / 5))


def test_versions_that_answer_alike_pass_after_a_hundred_situations_or_so() -> None:
    assert needed([], WORSE_BELOW, ALPHA) == 105
    assert proof([Pairs(0, 0, 104)], WORSE_BELOW, ALPHA) is INSUFFICIENT
    assert proof([Pairs(0, 0, 105)], WORSE_BELOW, ALPHA) is PASS


def first_pass(rng: random.Random, *, active: float, candidate: float, most: int) -> int | None:
    """The first of `most` situations at which an eye that never blinks sees a pass."""
    logs = [
        tuple(math.log1p(bet * (WORSE_BELOW - d)) for bet in (0.15, 0.3, 0.45, 0.6, 0.8)) for d in (1, -1, 0)
    ]
    wealth = [0.0] * 5
    for n in range(1, most + 1):
        drawn = rng.random()
        step = logs[0 if drawn < active else 1 if drawn < active + candidate else 2]
        wealth = [have + more for have, more in zip(wealth, step, strict=True)]
        if sum(map(math.exp, wealth)) / 5 >= 1 / ALPHA:
            return n
    return None


@pytest.mark.parametrize(("active", "candidate"), [(0.05, 0.0), (0.10, 0.05), (0.25, 0.20)])
def test_a_candidate_at_the_limit_passes_at_most_as_often_as_alpha_however_often_one_looks(
    active: float, candidate: float
) -> None:
    rng, runs = random.Random(7), 400
    passed = sum(
        first_pass(rng, active=active, candidate=candidate, most=1_500) is not None for _ in range(runs)
    )
    assert passed / runs <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)


@pytest.mark.parametrize(
    ("active", "candidate", "median"), [(0.02, 0.02, 150), (0.05, 0.05, 400), (0.02, 0.06, 90)]
)
def test_a_candidate_that_is_no_worse_passes_in_a_reasonable_time(
    active: float, candidate: float, median: int
) -> None:
    rng = random.Random(11)
    times = sorted(
        first_pass(rng, active=active, candidate=candidate, most=6_000) or 6_000 for _ in range(200)
    )
    assert times[100] <= median


counts = st.integers(0, 300)


@given(counts, counts, counts)
def test_no_counts_prove_both(active: int, candidate: int, tied: int) -> None:
    pairs = [Pairs(active, candidate, tied)]
    found = proof(pairs, WORSE_BELOW, ALPHA)
    bound = upper_difference(pairs, ALPHA)
    assert bound >= difference(pairs)
    assert (found is PASS) is (bound < WORSE_BELOW) or bound == pytest.approx(WORSE_BELOW, abs=1e-6)


@given(counts, counts, counts)
def test_more_that_only_the_active_version_had_right_never_help(
    active: int, candidate: int, tied: int
) -> None:
    fewer, more = Pairs(active, candidate, tied + 1), Pairs(active + 1, candidate, tied)
    assert log_wealth([more], WORSE_BELOW) < log_wealth([fewer], WORSE_BELOW)


def test_a_candidate_that_is_clearly_worse_fails() -> None:
    assert proof([Pairs(80, 5, 115)], WORSE_BELOW, ALPHA) is FAIL


def test_what_is_still_needed_is_what_then_suffices() -> None:
    pairs = Pairs(4, 4, 92)
    more = needed([pairs], WORSE_BELOW, ALPHA)
    assert more is not None
    assert proof([pairs.scaled((100 + more) / 100)], WORSE_BELOW, ALPHA) is PASS
    assert proof([pairs.scaled((99 + more) / 100)], WORSE_BELOW, ALPHA) is INSUFFICIENT
    assert needed([Pairs(30, 4, 66)], WORSE_BELOW, ALPHA) is None


def test_situations_that_were_drawn_more_often_count_less() -> None:
    """The candidate is worse where nine in ten draws fall, and far better where the traffic is."""
    often, rarely = Draw(Stratum.DISAGREEMENT, 0), Draw(Stratum.AGREEMENT, 10)
    totals = {
        (Metric.PAIRED, f"verdict:active:{often.label}"): 60,
        (Metric.PAIRED, f"verdict:candidate:{rarely.label}"): 20,
    }
    pairs = paired(evidence("v2", totals), "verdict", smallest=rarely.inclusion_probability)
    assert sorted(pair.weight for pair in pairs) == [pytest.approx(1 / 32), 1.0]
    assert difference(pairs) < 0


ANSWERED = Advisory("v", Outcome.OK, 5.0, decision=Decision.ALLOW)
REFUSED = replace(ANSWERED, decision=Decision.DENY)
SILENT = Advisory("v", Outcome.TIMEOUT, 5.0)
LEGACY = LegacyAnswer("rules", Decision.ALLOW, "open", 1.0)


@pytest.mark.parametrize(
    ("active", "candidate", "right"),
    [
        (ANSWERED, ANSWERED, "both"),
        (ANSWERED, REFUSED, "active"),
        (REFUSED, ANSWERED, "candidate"),
        (REFUSED, REFUSED, "neither"),
    ],
)
def test_a_pair_says_who_agreed(active: Advisory, candidate: Advisory, right: str) -> None:
    assert agreement_counts(active, candidate, LEGACY, exposed=True) == (("paired", f"agree:{right}", 1),)
    draw = Draw(Stratum.AGREEMENT, 3)
    assert active.decision is not None
    assert candidate.decision is not None
    found = verdict_counts(active.decision, candidate.decision, Decision.ALLOW, draw)
    assert found == (("paired", f"verdict:{right}:agreement:3", 1),)


@pytest.mark.parametrize(("active", "candidate"), [(SILENT, ANSWERED), (ANSWERED, SILENT), (None, ANSWERED)])
def test_without_two_answers_there_is_no_pair(active: Advisory | None, candidate: Advisory) -> None:
    assert agreement_counts(active, candidate, LEGACY, exposed=True) == ()


def test_actors_that_the_phase_does_not_apply_to_are_no_evidence() -> None:
    assert agreement_counts(ANSWERED, ANSWERED, LEGACY, exposed=False) == ()


def test_the_pairs_are_summed_for_a_person() -> None:
    found = tally(evidence("v2", {**ALIKE, (Metric.PAIRED, "verdict:both:disagreement:4"): 3}))
    assert found["verdicts"] == {"both": 403, "active": 0, "candidate": 0, "neither": 0}
    assert found["agreement"]["both"] == 400


def test_a_candidate_that_is_no_worse_in_both_respects_passes() -> None:
    gate = judged(ALIKE)
    assert (gate.outcome, gate.to) == (PASS, "version")
    assert gate.sentence.startswith("ready for version v2")


@pytest.mark.parametrize("kind", ["agree", "verdict"])
def test_no_data_is_not_good_news_for_a_candidate(kind: str) -> None:
    lacking = {(metric, label): n for (metric, label), n in ALIKE.items() if not label.startswith(kind)}
    assert judged(lacking).outcome is INSUFFICIENT


def test_what_is_missing_is_named_with_its_time() -> None:
    [agreement] = [c for c in judged({(Metric.PAIRED, "agree:both"): 50}).conditions if c.name == "agreement"]
    assert (agreement.n, agreement.needed) == (50, 55)
    assert agreement.eta_s == pytest.approx(55 / 25 * 86_400)


def test_agreement_that_is_not_independent_never_counts_and_verdicts_are_enough() -> None:
    gate = judged(ALIKE, independent=False)
    assert (outcome(gate, "agreement"), gate.outcome) == (INSUFFICIENT, PASS)
    alone = {(Metric.PAIRED, "agree:both"): 4_000}
    assert judged(alone, independent=False).outcome is INSUFFICIENT


@pytest.mark.parametrize("phase", list(Phase))
def test_one_wrong_allow_on_high_risk_is_one_too_many(phase: Phase) -> None:
    wrong = {**ALIKE, (Metric.WRONG_ALLOW, "all"): 1}
    state, high = replace(STATE, phase=phase), replace(POLICY, risk=Risk.HIGH)
    assert judged(wrong, policy=high, state=state).outcome is FAIL
    assert judged(wrong, state=state).outcome is PASS


def test_on_high_risk_enough_allows_must_have_been_judged_before_a_candidate_may_answer() -> None:
    high = replace(POLICY, risk=Risk.HIGH)
    assert judged(ALIKE, policy=high).outcome is INSUFFICIENT
    assert judged({**ALIKE, (Metric.REVIEWED_ALLOW, "all"): 299}, policy=high).outcome is PASS


def test_a_candidate_meets_the_limits_of_the_phase_that_it_would_act_in() -> None:
    limits = GateLimits(error_below=0.1, p95_below_ms=1_000, soak_days=1)
    strict = replace(POLICY, gates={Phase.ENFORCED: limits})
    gate = judged({**ALIKE, (Metric.OBSERVATION, "timeout"): 400}, policy=strict)
    assert (outcome(gate, "error"), gate.outcome) == (FAIL, FAIL)
    assert outcome(judged(ALIKE, policy=strict), "latency_p95") is INSUFFICIENT
    assert outcome(judged(ALIKE, policy=strict), "soak") is INSUFFICIENT


def test_draws_that_nobody_judged_may_be_what_is_wrong() -> None:
    drawn = {**ALIKE, (Metric.DRAWN, "agreement:0"): 500, (Metric.REVIEWED, "agreement:0"): 400}
    assert outcome(judged(drawn), "reviews_judged") is INSUFFICIENT


@pytest.mark.parametrize(
    "hindrance", [{"state": replace(STATE, held=True)}, {"investigated": True}], ids=["held", "investigated"]
)
def test_a_candidate_stays_out_while(hindrance: dict[str, object]) -> None:
    assert judged(ALIKE, **hindrance).outcome is FAIL  # type: ignore[arg-type]


def test_evidence_that_cannot_be_read_is_an_error() -> None:
    broken = replace(evidence("v1", {}), problem="torn")
    assert judged(ALIKE, active=broken).outcome is GateOutcome.ERROR


SPLIT = replace(STATE, candidate_mode=Comparison.SPLIT, candidate_share=0.5)


def arm(version: str, n: int, *, bad: int) -> Evidence:
    return evidence(
        version,
        {
            (Metric.PAIR, "allow>allow"): n - bad,
            (Metric.PAIR, "allow>deny"): bad,
            (Metric.REVIEWED, "agreement:0"): n,
            (Metric.DRAWN, "agreement:0"): n,
            (Metric.OVERRIDDEN, "agreement:0"): bad,
        },
    )


@pytest.mark.parametrize(
    ("n", "bad", "found"), [(1_000, 20, PASS), (1_000, 400, FAIL), (60, 1, INSUFFICIENT)]
)
def test_where_actors_are_split_the_rates_are_compared(n: int, bad: int, found: GateOutcome) -> None:
    seen = arm("v2", n, bad=bad)
    gate = judged(dict(seen.totals), state=SPLIT, active=arm("v1", 1_000, bad=20))
    assert [outcome(gate, "agreement"), outcome(gate, "override")] == [found, found]


def test_an_arm_without_data_proves_nothing() -> None:
    assert judged({}, state=SPLIT).outcome is INSUFFICIENT
