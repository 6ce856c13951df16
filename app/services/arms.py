"""How many different actors are there inside and outside an exposure?"""

import secrets

from app.domain.counters import Count
from app.domain.ratio import arm_count
from app.domain.rollout import RolloutState

_MOST = 5_000  # actors that are told apart at one exposure: enough to see a share that is wrong


class _Watch:
    """The actors seen at one exposure of one epoch, under a name that no other set has."""

    __slots__ = ("actors", "epoch", "exposure", "inside", "is_full", "outside")

    def __init__(self, epoch: int, exposure: float) -> None:
        self.epoch, self.exposure = epoch, exposure
        self.actors: set[float] = set()
        self.is_full = False
        name = secrets.token_hex(4)
        self.inside = (arm_count(exposure, inside=True, watch=name),)
        self.outside = (arm_count(exposure, inside=False, watch=name),)


class Arms:
    """Tells this instance's actors apart, for the rollouts whose phase applies to some of them alone.

    On the path of a decision, so it is one look into a set, bounded, and in memory only.
    """

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}

    def count(self, state: RolloutState, share: float) -> tuple[Count, ...]:
        """What this actor's decision adds; `share` is the actor's place among all, the same for ever."""
        exposure = state.exposure
        if exposure <= 0:
            return ()
        watch = self._watches.get(state.name)
        if watch is None or watch.epoch != state.epoch or watch.exposure != exposure:
            watch = self._watches[state.name] = _Watch(state.epoch, exposure)
        if watch.is_full or share in watch.actors:
            return ()
        watch.actors.add(share)
        if len(watch.actors) >= _MOST:
            watch.is_full, watch.actors = True, set()
        return watch.inside if share < exposure else watch.outside
