"""What does the evidence of a rollout say, and is it enough for the next phase?"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table

from app.domain.circumstance import OtherRollout, Surroundings
from app.domain.clock import from_us, to_us
from app.domain.condition import Condition, GateOutcome, span, unmet
from app.domain.condition import brief as in_brief
from app.domain.counters import Metric
from app.domain.evidence import Evidence, from_totals, unreadable
from app.domain.gate import AWAITED, Gate, GateContext, assess_gate
from app.domain.limits import GateLimits
from app.domain.phase import Phase
from app.domain.proofs import Validated
from app.domain.role import Principal
from app.domain.rollout import RolloutPolicy, RolloutState
from app.engines.model.version import ModelVersion
from app.errors import Conflict, PolicyError
from app.policy.suites import fingerprint
from app.services.freezes import frozen_now
from app.services.plane import Plane
from app.services.validate import validated
from app.store import tables as t
from app.store.approvals import standing
from app.store.counters import Totals, totals
from app.store.course import course, days_served
from app.store.decisions import recount_pairs
from app.store.rollouts import load_states, read_plane, served_s_since

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Gates:
    """Judges promotions. Whether agreement counts is for each of the `versions` to say.

    `policies_dir` holds the suites that a validation must be of.
    """

    plane: Plane
    versions: Mapping[str, ModelVersion]
    policies_dir: Path

    def evidence(
        self, connection: Connection, state: RolloutState, *, version: str | None = None
    ) -> Evidence:
        """The evidence of the rollout's present epoch, of its active version or another."""
        of = version or state.version
        counted = totals(connection, state.name, state.epoch, version=of)
        days = days_served(connection, state.name, state.epoch, version=of)
        return self.evidence_of(state, counted, days, version=of)

    def evidence_of(
        self, state: RolloutState, counted: Totals, days: Mapping[int, tuple[int, int]], *, version: str
    ) -> Evidence:
        """What was read of the present epoch, as evidence; the arguments as `from_totals` has them."""
        declared = self.versions.get(version)
        return from_totals(
            state.name,
            version,
            epoch=state.epoch,
            epoch_started_at=state.epoch_started_at,
            totals=counted,
            days=days,
            # What this instance has yet to learn of may be shown the legacy answer: no proof until then.
            independent=declared is not None and not declared.show_legacy,
        )

    def proven(
        self,
        connection: Connection,
        policy: RolloutPolicy,
        state: RolloutState,
        *,
        version: str | None = None,
        table: Table = t.advisories,
    ) -> Evidence:
        """`evidence` to act upon: on high risk the ledger itself, with its `table`, must say the same."""
        evidence = self.evidence(connection, state, version=version)
        if not policy.risk.is_high:
            return evidence
        counted = evidence.of(Metric.PAIR)
        ledger = recount_pairs(connection, state.name, state.epoch, version=evidence.version, table=table)
        if counted == ledger:
            return evidence
        return unreadable(
            state.name,
            evidence.version,
            epoch=state.epoch,
            epoch_started_at=state.epoch_started_at,
            problem=f"the counters say {json.dumps(counted)}, the ledger {json.dumps(ledger)}",
        )

    def assess(
        self,
        connection: Connection,
        policy: RolloutPolicy,
        state: RolloutState,
        evidence: Evidence,
        *,
        to: Phase,
        now: datetime,
        by: Principal | None = None,
    ) -> Gate:
        """Judge a promotion by `evidence`, or by what is `proven` inside the promotion's own transaction.

        `by` would promote: their own approval does not count.
        """
        since_us = to_us(max(state.epoch_started_at, now - timedelta(days=1)))
        came, latest_us = course(
            connection, state.name, state.epoch, version=evidence.version, metrics=AWAITED, since_us=since_us
        )
        context = GateContext(
            around=surroundings(connection, state.name, now),
            observed_days_since_closed=_observed_days(connection, state),
            others=self._others(connection, policy),
            pace=per_day(came, state, now),
            latest_at=None if latest_us is None else from_us(latest_us),
            approvals=[each for each in standing(connection, state.name, to) if each.concerns(state)],
            by=by,
            validation=self.validation(connection, policy.gates.get(to), evidence.version),
        )
        return assess_gate(policy, state, evidence, context, to=to, now=now)

    def validation(
        self, connection: Connection, limits: GateLimits | None, version: str
    ) -> Validated | str | None:
        """The version's validation, where the gate asks for one, or why the suites cannot be read."""
        if limits is None or limits.validation_above is None:
            return None
        try:
            suites = fingerprint(self.policies_dir)
        except PolicyError as error:
            return str(error)
        return validated(connection, version, suite_sha256=suites)

    def _others(self, connection: Connection, policy: RolloutPolicy) -> dict[str, OtherRollout]:
        if not policy.requires:
            return {}
        states = load_states(connection)
        return {
            name: OtherRollout(states[name].phase, self.evidence(connection, states[name]))
            for name in (requirement.rollout for requirement in policy.requires)
            if name in states
        }


def surroundings(connection: Connection, rollout: str, now: datetime) -> Surroundings:
    """What may stand in the way of loosening a rollout now, whatever its evidence says."""
    plane = read_plane(connection)
    return Surroundings(plane.kill_switch, plane.clock_jump_us, frozen_now(connection, rollout, now))


def refuse_hindered(connection: Connection, state: RolloutState, now: datetime) -> None:
    """Raises `Conflict` where a rollout may not be loosened now: it is held, killed or frozen."""
    around = surroundings(connection, state.name, now)
    if state.held:
        raise Conflict("held", f"{state.name} is held: {state.hold_reason}")
    if around.kill_switch:
        raise Conflict("kill-switch", "the kill switch is engaged")
    if around.frozen is not None:
        raise Conflict("frozen", f"{state.name} is {around.frozen.sentence}")


def per_day(came: Mapping[str, int], state: RolloutState, now: datetime) -> dict[str, float]:
    """How many of each metric come a day, where so many came in the last 24 hours of the epoch."""
    age = max(now - state.epoch_started_at, timedelta(seconds=1))
    share = min(age, timedelta(days=1)) / timedelta(days=1)
    return {metric: n / share for metric, n in came.items()}


def _observed_days(connection: Connection, state: RolloutState) -> float:
    """Served days of the version that would be promoted since the last investigation closed."""
    case = state.investigation
    if case is None or case.closed_at is None:
        return 0.0
    return (
        served_s_since(connection, state.name, version=state.version, since_us=to_us(case.closed_at)) / _DAY_S
    )


def ceiling_gate(policy: RolloutPolicy, to: Phase) -> Gate:
    """What a gate above the ceiling says: nothing will ever open it."""
    said = f"{policy.name} never goes past {policy.ceiling}"
    condition = Condition("ceiling", GateOutcome.FAIL, said)
    return Gate(policy.name, to, GateOutcome.FAIL, said, (condition,))


def describe(
    state: RolloutState, policy: RolloutPolicy, gate: Gate | None, *, why: str | None
) -> dict[str, Any]:
    """The one plain sentence of a rollout: ready, not yet, rolled back and `why`, held, or at its ceiling.

    `brief` says of a gate that is not open only what stands in the way most, `more` how much else does. The
    kill switch concerns all of them: `brief` names it where nothing of the rollout's own is in the way.
    """
    standing, sentence = _standing(state, policy, gate, why=why)
    brief, more = sentence, 0
    if standing == "not_yet" and gate is not None:
        missing = unmet(gate.conditions)
        first, *others = [each for each in missing if each.name != "kill_switch"] or missing
        brief, more = in_brief(first), len(others)
    return {"state": standing, "sentence": sentence, "brief": brief, "more": more}


def _standing(
    state: RolloutState, policy: RolloutPolicy, gate: Gate | None, *, why: str | None
) -> tuple[str, str]:
    if state.held:
        return "held", f"held: {state.hold_reason}"
    case = state.investigation
    if state.rolled_back and case is not None and case.is_open:
        then = f"close its investigation, then {span(policy.rollback_observe_days)} of observation"
        return "rolled_back", f"rolled back to {state.phase}: {why}; {then}"
    if gate is None:
        return "at_ceiling", f"at its ceiling: {policy.ceiling}"
    return "ready" if gate.outcome is GateOutcome.PASS else "not_yet", gate.sentence
