"""Where does each rollout stand, in one picture?"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.clock import rfc3339, to_us
from app.domain.counters import Metric
from app.domain.evidence import Evidence
from app.domain.evidence import to_wire as evidence_document
from app.domain.gate import Gate
from app.domain.gate import to_wire as gate_document
from app.domain.phase import Phase
from app.domain.ratio import sample_ratio
from app.domain.role import Principal
from app.domain.rollout import Investigation, RolloutPolicy, RolloutState
from app.errors import InvalidInput
from app.learning.corrections import EXAMPLES_AT_LEAST
from app.services.gates import Gates, ceiling_gate, describe
from app.services.guard import Guard
from app.services.overview import Overview, Standing
from app.services.plane import Plane
from app.services.ramps import Ramps
from app.store.history import list_transitions
from app.store.rollouts import load_states, read_plane, rollback_reason

_OF_STATE = (
    *("name", "phase", "exposure", "revision", "epoch", "version", "candidate", "previous"),
    *("held", "hold_reason"),
)
_OF_POLICY = ("actions", "when", "risk", "ceiling", "combine", "approval")


@dataclass(frozen=True, slots=True)
class Rollouts:
    plane: Plane
    gates: Gates
    guard: Guard
    ramps: Ramps
    overview: Overview
    now: Callable[[], datetime]

    def all(self) -> list[dict[str, Any]]:
        """Every rollout of the policy in force, in its order."""
        with self.plane.database.read() as connection:
            row, standings = self.overview.read(connection)
            return [self._document(connection, each, kill_switch=row.kill_switch) for each in standings]

    def one(self, name: str) -> dict[str, Any]:
        """One rollout with its gate, guardrails and evidence. Raises `NotFound`."""
        with self.plane.database.read() as connection:
            policy, state = self._find(connection, name)
            seen = self._standing(connection, policy, state)
            killed = read_plane(connection).kill_switch
            document = self._document(connection, seen, kill_switch=killed)
        gate, evidence = seen.gate, seen.evidence
        judged, ratio = evidence.n(Metric.REVIEWED), sample_ratio(evidence, state.exposure)
        document["gate"] = None if gate is None else gate_document(gate)
        document["guardrails"] = self.guard.assessments(name)
        document["sample_ratio"] = None if ratio is None else ratio.to_wire()
        document["suggestion"] = None
        if judged >= EXAMPLES_AT_LEAST:
            said = f"{EXAMPLES_AT_LEAST} or more verdicts since this version began"
            document["suggestion"] = f"{said}: phasegate learn {name} may make a better one"
        return document

    def gate(self, name: str, to: Phase | None) -> dict[str, Any]:
        with self.plane.database.read() as connection:
            policy, state = self._find(connection, name)
            wanted = to or state.phase.higher() or Phase.ENFORCED
            if wanted is Phase.SHADOW:
                raise InvalidInput([("to", "nothing is promoted to shadow")])
            if wanted.rank > policy.ceiling.rank:
                return gate_document(ceiling_gate(policy, wanted))
            evidence = self.gates.evidence(connection, state)
            return gate_document(self._judged(connection, policy, state, evidence, to=wanted))

    def guardrails(self, name: str) -> dict[str, Any]:
        return {"rollout": name, "guardrails": self.guard.assessments(name)}

    def evidence(self, name: str, principal: Principal) -> dict[str, Any]:
        with self.plane.database.read() as connection:
            policy, state = self._find(connection, name)
            evidence = self.gates.evidence(connection, state)
        return evidence_for(principal, policy, evidence)

    def transitions(self, name: str, *, limit: int) -> list[dict[str, Any]]:
        with self.plane.database.read() as connection:
            self._find(connection, name)
            return list_transitions(connection, name, limit=limit)

    def _find(self, connection: Connection, name: str) -> tuple[RolloutPolicy, RolloutState]:
        return self.plane.view.policy.book.get(name), load_states(connection)[name]

    def _standing(self, connection: Connection, policy: RolloutPolicy, state: RolloutState) -> Standing:
        evidence, to, gate = self.gates.evidence(connection, state), state.phase.higher(), None
        if to is not None and to.rank <= policy.ceiling.rank:
            gate = self._judged(connection, policy, state, evidence, to=to)
        case = state.investigation
        why = None if case is None else rollback_reason(connection, case)
        return Standing(policy, state, evidence, gate, why)

    def _judged(
        self,
        connection: Connection,
        policy: RolloutPolicy,
        state: RolloutState,
        evidence: Evidence,
        *,
        to: Phase,
    ) -> Gate:
        return self.gates.assess(connection, policy, state, evidence, to=to, now=self.now())

    def _document(self, connection: Connection, seen: Standing, *, kill_switch: bool) -> dict[str, Any]:
        policy, state, case = seen.policy, seen.state, seen.state.investigation
        return {
            **{name: getattr(state, name) for name in _OF_STATE},
            **{name: getattr(policy, name) for name in _OF_POLICY},
            "exposure_steps": policy.exposure,
            "epoch_started_at": rfc3339(to_us(state.epoch_started_at)),
            "ramp": self.ramps.document(connection, policy, state, seen.evidence),
            "kill_switch": kill_switch,
            "investigation": None if case is None else _investigation(case),
            "status": describe(state, policy, seen.gate, why=seen.why),
        }


def evidence_for(principal: Principal, policy: RolloutPolicy, evidence: Evidence) -> dict[str, Any]:
    """The `evidence` shape: beside the decisions that they see, the confusion would tell a reviewer how the others were answered."""
    found = evidence_document(evidence, alpha=policy.gate_alpha)
    return {**found, "confusion": None} if principal.only_judges else found


def _investigation(case: Investigation) -> dict[str, Any]:
    return {
        **{name: getattr(case, name) for name in ("id", "version", "cause", "fix")},
        "opened_at": rfc3339(to_us(case.opened_at)),
        "closed_at": None if case.closed_at is None else rfc3339(to_us(case.closed_at)),
    }
