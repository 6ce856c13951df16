"""Does anybody still watch what a rollout does?"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from app.domain.clock import to_us
from app.domain.phase import Phase
from app.domain.rollout import RolloutPolicy, RolloutState
from app.services.transitions import AUTOMATION, hold, roll_back
from app.store.reviews import oversight
from app.store.rollouts import load_states, lock_state
from app.store.transaction import Transaction

_DAY_US = 86_400_000_000


def lapse(tx: Transaction, policies: Iterable[RolloutPolicy], *, now: datetime) -> list[dict[str, Any]]:
    """Hold what was not judged for `lapse_days`, demote it after twice that; returns the transitions."""
    seen, states = oversight(tx.connection), load_states(tx.connection)
    made = [
        _lapsed(tx, policy, states[policy.name], seen[policy.name], now=now)
        for policy in policies
        if policy.name in seen
    ]
    return [transition for transition in made if transition is not None]


def _lapsed(
    tx: Transaction,
    policy: RolloutPolicy,
    state: RolloutState,
    seen: tuple[int | None, int | None],
    *,
    now: datetime,
) -> dict[str, Any] | None:
    last_us, oldest_us = seen
    if oldest_us is None or state.phase is Phase.SHADOW:
        return None
    since_us = max(oldest_us, last_us or 0, to_us(state.epoch_started_at))
    days = (to_us(now) - since_us) / _DAY_US
    said = f"no drawn review was judged for {days:.1f} days"
    if days >= 2 * policy.lapse_days:
        return roll_back(tx, lock_state(tx, state.name), policy, actor=AUTOMATION, reason=said, now=now)
    if days >= policy.lapse_days and not state.held:
        return hold(tx, lock_state(tx, state.name), actor=AUTOMATION, reason=said, now=now)
    return None
