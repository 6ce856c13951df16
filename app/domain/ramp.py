"""Which steps of exposure did a person approve, and where on them does a rollout stand?"""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.domain.clock import rfc3339, to_us


class RampState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Ramp:
    """Steps of exposure that a person approved; `domain/ascent.py` says when the next one is due.

    `steps` are all of the policy's up to the approved one, shares 0..1, rising; `step` is the present one,
    with what the epoch had served and observed when it began. `eased` names what it was stepped down for.
    """

    id: str
    steps: tuple[float, ...]
    step_hours: float
    observations: int
    epoch: int
    started_by: str  # key id
    started_at: datetime
    step: float
    step_started_at: datetime
    served_before_s: int
    observed_before: int
    eased: tuple[str, ...] = ()
    state: RampState = RampState.RUNNING
    why: str | None = None  # it is no longer running

    @property
    def is_running(self) -> bool:
        return self.state is RampState.RUNNING

    @property
    def upper(self) -> float | None:
        """The next approved step up."""
        return min((step for step in self.steps if step > self.step), default=None)

    @property
    def lower(self) -> float | None:
        return max((step for step in self.steps if step < self.step), default=None)

    def at(
        self, step: float, *, served_s: int, observed: int, eased: tuple[str, ...], now: datetime
    ) -> "Ramp":
        """At another step, where time and observations begin anew."""
        return replace(
            self,
            step=step,
            step_started_at=now,
            served_before_s=served_s,
            observed_before=observed,
            eased=eased,
        )

    def ended(self, state: RampState, why: str) -> "Ramp":
        return replace(self, state=state, why=why)


def to_wire(ramp: Ramp) -> dict[str, Any]:
    """The plain members of the `ramp` shape."""
    document = asdict(ramp)
    del document["served_before_s"], document["observed_before"]
    started_at, step_started_at = rfc3339(to_us(ramp.started_at)), rfc3339(to_us(ramp.step_started_at))
    following = ramp.upper if ramp.is_running else None
    return {**document, "started_at": started_at, "step_started_at": step_started_at, "next": following}
