from datetime import datetime, timedelta

import pytest

from app.domain.condition import GateOutcome
from app.domain.counters import Metric
from app.domain.proofs import actors, freshness, reviewers
from tests.domain.making import NOW, evidence

PASS, INSUFFICIENT, FAIL, ERROR = GateOutcome


@pytest.mark.parametrize(("n", "outcome"), [(9, INSUFFICIENT), (10, PASS)])
def test_ten_different_actors_are_asked_for(n: int, outcome: GateOutcome) -> None:
    judged = actors(evidence({(Metric.ACTORS, "all"): n}), at_least=10, per_day=2.0)
    assert (judged.outcome, judged.needed) == (outcome, 10 - n)


def test_how_many_are_missing_and_how_long_that_takes_is_said_to_people() -> None:
    few = evidence({(Metric.ACTORS, "all"): 4})
    assert (
        actors(few, at_least=10, per_day=2.0).sentence
        == "4 different actors, needs 10: 6 more actors, about 3 days"
    )


def test_without_traffic_there_is_no_estimate_and_the_sentence_says_so() -> None:
    judged = actors(evidence({}), at_least=10, per_day=0.0)
    assert judged.eta_s is None
    assert judged.sentence.endswith("10 more actors, but none yet in this epoch")


@pytest.mark.parametrize(
    ("latest", "outcome"),
    [
        pytest.param(NOW - timedelta(days=3), PASS, id="just young enough"),
        pytest.param(NOW - timedelta(days=3, seconds=1), INSUFFICIENT, id="stale"),
        pytest.param(NOW + timedelta(seconds=30), PASS, id="of another instance, whose clock is ahead"),
        pytest.param(None, INSUFFICIENT, id="none at all"),
    ],
)
def test_old_evidence_is_stale_and_none_is_no_evidence(latest: datetime | None, outcome: GateOutcome) -> None:
    assert freshness(latest, stale_after_days=3.0, now=NOW).outcome is outcome


def test_stale_evidence_says_since_when() -> None:
    judged = freshness(NOW - timedelta(days=4), stale_after_days=3.0, now=NOW)
    assert judged.sentence == "evidence is stale since 2026-11-12 00:00 UTC, the latest observation"


def pairs(alike: int, apart: int, *, rare: int = 0) -> dict[tuple[Metric, str], int]:
    return {
        (Metric.DOUBLE, "allow>allow"): alike,
        (Metric.DOUBLE, "allow>deny"): apart,
        (Metric.DOUBLE, "deny>deny"): rare,
    }


@pytest.mark.parametrize(
    ("alike", "apart", "outcome"),
    [
        pytest.param(0, 0, INSUFFICIENT, id="nobody judged twice"),
        pytest.param(200, 5, PASS, id="proven"),
        pytest.param(20, 1, INSUFFICIENT, id="too few"),
        pytest.param(100, 40, FAIL, id="proven not to"),
    ],
)
def test_reviewers_must_be_proven_to_agree(alike: int, apart: int, outcome: GateOutcome) -> None:
    seen = evidence(pairs(alike, apart))
    assert reviewers(seen, limit=0.9, alpha=0.05, per_day=5.0).outcome is outcome


def test_agreement_that_chance_would_bring_is_not_enough() -> None:
    halves = evidence(pairs(6_100, 900, rare=6_100))
    judged = reviewers(halves, limit=0.92, alpha=0.05, per_day=None)
    assert judged.bound is not None
    assert judged.bound > 0.92
    assert judged.outcome is INSUFFICIENT
    assert "hardly more than chance" in judged.sentence
