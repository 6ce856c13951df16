"""Where do all rollouts stand, in the same few queries however many there are?"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from app.domain.circumstance import OtherRollout, Surroundings
from app.domain.clock import from_us, to_us
from app.domain.evidence import Evidence
from app.domain.freeze import frozen
from app.domain.gate import AWAITED, Gate, GateContext, assess_gate
from app.domain.phase import Phase
from app.domain.proofs import Validated
from app.domain.rollout import RolloutPolicy, RolloutState
from app.services.gates import Gates, per_day
from app.services.plane import Plane
from app.store import approvals, freezes
from app.store.counters import totals_of_all
from app.store.course import course_of_all, served_s_since_closed
from app.store.rollouts import PlaneRow, load_states, read_plane, rollback_reasons

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Standing:
    """One rollout, the gate of its next phase if it may have one, and why its open investigation came."""

    policy: RolloutPolicy
    state: RolloutState
    evidence: Evidence
    gate: Gate | None
    why: str | None


@dataclass(frozen=True, slots=True)
class Overview:
    """What `Gates` says of one rollout, of all of the policy in force, in its order."""

    plane: Plane
    gates: Gates
    now: Callable[[], datetime]

    def read(self, connection: Connection) -> tuple[PlaneRow, list[Standing]]:
        reading = _Reading(self.gates, connection, self.now())
        return reading.row, [reading.standing(policy) for policy in self.plane.view.policy.book.policies]


class _Reading:
    """All that the gates are judged by, read at one time."""

    def __init__(self, gates: Gates, connection: Connection, now: datetime) -> None:
        self._gates, self._connection, self._now = gates, connection, now
        self.row, self._states = read_plane(connection), load_states(connection)
        since_us = to_us(now - timedelta(days=1))
        self._courses = course_of_all(connection, metrics=AWAITED, since_us=since_us)
        counted = totals_of_all(connection)
        self._evidence = {
            name: gates.evidence_of(state, counted[name], self._courses[name].days, version=state.version)
            for name, state in self._states.items()
        }
        self._reasons, self._served_s = rollback_reasons(connection), served_s_since_closed(connection)
        self._freezes, self._approvals = freezes.standing(connection), approvals.standing(connection)
        self._validations: dict[str, Validated | str | None] = {}

    def standing(self, policy: RolloutPolicy) -> Standing:
        name, to = policy.name, self._states[policy.name].phase.higher()
        gate = self._gate(policy, to) if to is not None and to.rank <= policy.ceiling.rank else None
        return Standing(policy, self._states[name], self._evidence[name], gate, self._reasons.get(name))

    def _gate(self, policy: RolloutPolicy, to: Phase) -> Gate:
        state, course = self._states[policy.name], self._courses[policy.name]
        given = [each for each in self._approvals if each.to is to and each.concerns(state)]
        is_frozen = frozen(self._freezes, state.name, self._now)
        context = GateContext(
            around=Surroundings(self.row.kill_switch, self.row.clock_jump_us, is_frozen),
            observed_days_since_closed=self._served_s.get(state.name, 0) / _DAY_S,
            others=self._others(policy),
            pace=per_day(course.came, state, self._now),
            latest_at=None if course.latest_us is None else from_us(course.latest_us),
            approvals=given,
            validation=self._validation(policy, to, state.version),
        )
        return assess_gate(policy, state, self._evidence[state.name], context, to=to, now=self._now)

    def _others(self, policy: RolloutPolicy) -> dict[str, OtherRollout]:
        names = (requirement.rollout for requirement in policy.requires)
        return {
            name: OtherRollout(self._states[name].phase, self._evidence[name])
            for name in names
            if name in self._states
        }

    def _validation(self, policy: RolloutPolicy, to: Phase, version: str) -> Validated | str | None:
        limits = policy.gates.get(to)
        if limits is None or limits.validation_above is None:
            return None
        if version not in self._validations:
            self._validations[version] = self._gates.validation(self._connection, limits, version)
        return self._validations[version]
