"""Are different actors counted once, and no more of them than memory has room for?"""

from collections import Counter
from dataclasses import replace

from app.domain.phase import Phase
from app.domain.rollout import RolloutState
from app.services.arms import Arms
from tests.domain import making

STATE = making.state(phase=Phase.ENFORCED, exposure=0.25)


def counted(arms: Arms, shares: list[float], state: RolloutState = STATE) -> Counter[str]:
    """What was counted on either side."""
    sides: Counter[str] = Counter()
    for share in shares:
        for _, label, n in arms.count(state, share):
            sides[label.rpartition(":")[0]] += n
    return sides


def test_an_actor_counts_once_on_its_side() -> None:
    assert counted(Arms(), [0.1, 0.9, 0.1, 0.2, 0.9]) == {"0.25:in": 2, "0.25:out": 1}


def test_an_actor_on_the_edge_is_outside_as_the_router_has_it() -> None:
    assert counted(Arms(), [0.25]) == {"0.25:out": 1}


def test_memory_is_bounded_and_what_is_beyond_it_counts_nothing() -> None:
    sides = counted(Arms(), [number / 20_000 for number in range(20_000)] * 2)
    assert sides.total() == 5_000


def test_another_exposure_or_epoch_begins_anew_under_a_name_of_its_own() -> None:
    arms = Arms()
    [(_, first, _)] = arms.count(STATE, 0.1)
    [(_, wider, _)] = arms.count(replace(STATE, exposure=0.5), 0.1)
    [(_, back, _)] = arms.count(STATE, 0.1)
    [(_, later, _)] = arms.count(replace(STATE, epoch=2), 0.1)
    assert len({first, wider, back, later}) == 4
    assert [each.rpartition(":")[0] for each in (first, wider, back, later)] == [
        "0.25:in",
        "0.5:in",
        "0.25:in",
        "0.25:in",
    ]


def test_rollouts_do_not_share_their_actors() -> None:
    arms = Arms()
    assert arms.count(STATE, 0.1)
    assert arms.count(replace(STATE, name="write"), 0.1)
    assert not arms.count(STATE, 0.1)


def test_where_nobody_is_exposed_nobody_is_counted() -> None:
    assert not counted(Arms(), [0.1, 0.9], replace(STATE, exposure=0.0))
