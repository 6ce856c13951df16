"""How does a candidate do beside the active version, and may it take its place?"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.clock import rfc3339, to_us
from app.domain.evidence import to_wire as evidence_document
from app.domain.experiment import Versions, assess_candidate, tally
from app.domain.gate import Gate, GateContext
from app.domain.gate import to_wire as gate_document
from app.domain.rollout import RolloutPolicy, RolloutState
from app.errors import Conflict
from app.services.gates import Gates, surroundings
from app.services.plane import Plane
from app.store import tables as t
from app.store.rollouts import investigated, load_states


@dataclass(frozen=True, slots=True)
class Experiments:
    """Judges candidates; who may act on it is `services/succession.py`'s to say."""

    plane: Plane
    gates: Gates
    now: Callable[[], datetime]

    def assess_for_activation(
        self, connection: Connection, policy: RolloutPolicy, state: RolloutState
    ) -> Gate:
        """Judge it for real, inside the activation's own transaction. Raises `Conflict("no-candidate")`."""
        candidate, table = _candidate(state), t.candidate_advisories
        versions = Versions(
            self.gates.proven(connection, policy, state),
            self.gates.proven(connection, policy, state, version=candidate, table=table),
        )
        return self._judge(connection, policy, state, versions)

    def gate(self, name: str) -> dict[str, Any]:
        """The gate of a rollout's candidate. Raises `NotFound` and `Conflict("no-candidate")`."""
        policy = self.plane.view.policy.book.get(name)
        with self.plane.database.read() as connection:
            state = load_states(connection)[name]
            gate = self._judge(connection, policy, state, self._evidence(connection, state))
        return gate_document(gate)

    def of(self, name: str) -> dict[str, Any] | None:
        """What the comparison of a rollout's candidate says so far, or None where it has none. Raises `NotFound`."""
        policy = self.plane.view.policy.book.get(name)
        with self.plane.database.read() as connection:
            state = load_states(connection)[name]
            return None if state.candidate is None else self._document(connection, policy, state)

    def all(self) -> list[dict[str, Any]]:
        """Every rollout that has a candidate, with what the comparison says so far."""
        with self.plane.database.read() as connection:
            states = load_states(connection)
            return [
                self._document(connection, policy, states[policy.name])
                for policy in self.plane.view.policy.book.policies
                if states[policy.name].candidate is not None
            ]

    def _document(self, connection: Connection, policy: RolloutPolicy, state: RolloutState) -> dict[str, Any]:
        versions = self._evidence(connection, state)
        assert state.candidate_since is not None
        return {
            "rollout": state.name,
            "active": state.version,
            "candidate": state.candidate,
            "mode": state.candidate_mode,
            "share": state.candidate_share,
            "since": rfc3339(to_us(state.candidate_since)),
            "independent": versions.independent,
            "paired": tally(versions.candidate),
            "evidence": evidence_document(versions.candidate, alpha=policy.gate_alpha),
            "gate": gate_document(self._judge(connection, policy, state, versions)),
        }

    def _evidence(self, connection: Connection, state: RolloutState) -> Versions:
        candidate = self.gates.evidence(connection, state, version=_candidate(state))
        return Versions(self.gates.evidence(connection, state), candidate)

    def _judge(
        self, connection: Connection, policy: RolloutPolicy, state: RolloutState, versions: Versions
    ) -> Gate:
        candidate, now = versions.candidate.version, self.now()
        context = GateContext(
            around=surroundings(connection, state.name, now),
            validation=self.gates.validation(connection, policy.gates.get(state.phase), candidate),
        )
        return assess_candidate(
            policy,
            state,
            versions,
            context,
            investigated=candidate in investigated(connection),
            now=now,
        )


def _candidate(state: RolloutState) -> str:
    if state.candidate is None:
        raise Conflict("no-candidate", f"{state.name} has no candidate")
    return state.candidate
