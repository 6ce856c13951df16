import random
import statistics
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.pairing import BETS, Difference, paired_tallies, paired_variation
from app.domain.sequential import e_value, start
from app.domain.shift import shift_tallies
from app.domain.stream import Counted, StreamState, fold_totals

LABELS = ["allow", "require_attestation", "deny"]
PAIRS = [f"{legacy}>{model}" for legacy in LABELS for model in LABELS]
# Of 1,000 shadow decisions: the model agrees in 90 of 100, and else leans to asking.
BASELINE = {
    "allow>allow": 600,
    "allow>require_attestation": 40,
    "allow>deny": 10,
    "require_attestation>allow": 20,
    "require_attestation>require_attestation": 170,
    "require_attestation>deny": 10,
    "deny>allow": 5,
    "deny>require_attestation": 15,
    "deny>deny": 130,
}
H, ALPHA = 4_000, 0.01
pairs = st.fixed_dictionaries({label: st.integers(0, 300) for label in PAIRS})


def stream_of(drawn: Iterable[str], *, threshold: float = 1 / ALPHA) -> tuple[int | None, int | None]:
    """At which sample the paired guardrail and the plain one alarm; a horizon has 4,000 samples."""
    paired, plain = StreamState(1, "", 0), StreamState(1, "", 0)
    seen, answers = dict.fromkeys(PAIRS, 0), dict.fromkeys(LABELS, 0)
    alarms: dict[str, int] = {}
    for n, pair in enumerate(drawn, start=1):
        seen[pair] += 1
        answers[pair.partition(">")[2]] += 1
        paired = folded(paired, paired_tallies(seen, BASELINE, limit=0.20), n)
        plain = folded(plain, shift_tallies(answers, answered(BASELINE), limit=0.20), n)
        for name, state in (("paired", paired), ("plain", plain)):
            if state.e_value >= threshold:
                alarms.setdefault(name, n)
        if "paired" in alarms:
            break
    return alarms.get("paired"), alarms.get("plain")


def folded(state: StreamState, tallies: dict[str, Counted], n: int) -> StreamState:
    return fold_totals(state, tallies, now_us=n * 14 * 86_400_000_000 // H, horizon_days=14)


def answered(counts: dict[str, int]) -> dict[str, int]:
    return {label: sum(n for pair, n in counts.items() if pair.endswith(f">{label}")) for label in LABELS}


def drawn(chance: random.Random, shares: dict[str, int], n: int) -> list[str]:
    return chance.choices(list(shares), list(shares.values()), k=n)


def mixed(**traffic: int) -> dict[str, int]:
    """Other traffic for the same engines: of each legacy answer so many, and the model as before."""
    return {
        pair: n
        * traffic[pair.partition(">")[0]]
        // sum(BASELINE[f"{pair.partition('>')[0]}>{model}"] for model in LABELS)
        for pair, n in BASELINE.items()
    }


def test_other_traffic_moves_the_distribution_and_not_the_pairs() -> None:
    chance = random.Random("mix")
    moved = mixed(allow=250_000, require_attestation=250_000, deny=500_000)
    found = [stream_of(drawn(chance, moved, 800)) for _ in range(12)]
    assert [paired for paired, _ in found] == [None] * 12
    assert all(plain is not None for _, plain in found)


def test_a_model_that_denies_everything_is_found_within_about_thirty_samples() -> None:
    chance = random.Random("deny")
    legacy = {"allow>deny": 650, "require_attestation>deny": 200, "deny>deny": 150}
    delays = [stream_of(drawn(chance, legacy, 200), threshold=5 / ALPHA)[0] for _ in range(60)]
    assert None not in delays
    found = sorted(delay for delay in delays if delay)
    assert statistics.median(found) <= 30
    assert found[int(0.95 * len(found))] <= 36


def test_a_model_that_stays_as_it_was_alarms_falsely_one_time_in_a_hundred_at_most() -> None:
    chance, alarms = random.Random("healthy"), 0
    for _ in range(60):
        state, seen = StreamState(1, "", 0), Counter[str]()
        for n in range(20, H + 1, 20):
            seen.update(drawn(chance, BASELINE, 20))
            state = folded(state, paired_tallies(seen, BASELINE, limit=0.20), n)
            if state.e_value >= 1 / ALPHA:
                alarms += 1
                break
    assert alarms <= 1


def test_a_model_at_the_limit_alarms_falsely_one_time_in_a_hundred_at_most() -> None:
    """The null's very edge, on the one stream that stands there: its own E, not the mean of six."""
    chance, alarms = random.Random("edge"), 0
    for _ in range(300):
        stream, limit = start(), 0.1
        # P(up) - P(down) = 0.1, in batches, with all of the horizon's allowance.
        for _ in range(200):
            batch = chance.choices((1, -1, 0), (0.15, 0.05, 0.80), k=20)
            each = Difference(0, 0, 0, limit)
            stream = each.grown(stream, (20, batch.count(1), batch.count(-1)), gap=0.5 / 200)
            if e_value(stream) >= 1 / ALPHA:
                alarms += 1
                break
    assert alarms <= 0.0147 * 300 + 3 * (0.0147 * 300) ** 0.5


@given(up=st.floats(0, 1), down=st.floats(0, 1), due=st.floats(0, 1))
def test_a_pair_at_the_limit_is_no_evidence_on_average(up: float, down: float, due: float) -> None:
    up, down = up / 2, down / 2
    limit = max(min(up - down, 0.999), -0.9)
    each = Difference(0, 0, 0, limit)
    after = [e_value(each.grown(start(), gained, gap=due)) for gained in ((1, 1, 0), (1, 0, 1), (1, 0, 0))]
    mean = up * after[0] + down * after[1] + (1 - up - down) * after[2]
    assert mean == pytest.approx(e_value(start()) + due, rel=1e-6)


@given(limit=st.floats(-0.95, 0.999))
def test_no_pair_takes_all_of_the_evidence(limit: float) -> None:
    stream = start()
    for gained in ((1, 1, 0), (1, 0, 1), (1, 0, 0)):
        assert min(Difference(0, 0, 0, limit).grown(stream, gained, gap=0.0)) >= 0.0999 * stream[0]


def test_the_bets_are_those_of_the_formula_where_the_baseline_is_even() -> None:
    even = {"allow>allow": 300}
    tallies = paired_tallies(even, even, limit=0.20)
    for side in ("deny+", "deny-"):
        stream = tallies[side].grown((1.0,) * 5, (1, 1, 0), gap=0.0)
        assert stream == pytest.approx([1 + bet * (1 - 0.1) for bet in BETS])


@given(seen=pairs)
def test_every_stream_counts_every_pair(seen: dict[str, int]) -> None:
    for tally in paired_tallies(seen, BASELINE, limit=0.20).values():
        n, up, down = tally.counts
        assert n == sum(seen.values())
        assert min(up, down) >= 0
        assert up + down <= n


def test_the_variation_is_the_largest_move_of_a_mean() -> None:
    assert paired_variation(BASELINE, BASELINE) == 0
    assert paired_variation({}, BASELINE) is None
    assert paired_variation(BASELINE, {}) is None
    all_deny = {"allow>deny": 65, "require_attestation>deny": 20, "deny>deny": 15}
    assert paired_variation(all_deny, BASELINE) == pytest.approx(0.85)
