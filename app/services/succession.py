"""People decide which version a rollout runs on: candidate, activate, revert, withdraw."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, assert_never

from app.domain.condition import GateOutcome
from app.domain.gate import to_wire as gate_document
from app.domain.phase import Phase
from app.domain.role import Principal, Role
from app.domain.rollout import (
    Comparison,
    RolloutPolicy,
    RolloutState,
    activated,
    first_exposure,
    reset_to_shadow,
    reverted,
    with_candidate,
    withdrawn,
)
from app.errors import Conflict, Forbidden, GateNotMet, InvalidInput, NotFound
from app.services.experiments import Experiments
from app.services.levers import Levers
from app.services.transitions import move
from app.services.versions import Versions
from app.store.counters import latest_answers
from app.store.ledger import Ledger
from app.store.rollouts import investigated
from app.store.transaction import Transaction
from app.store.versions import registered


class Act(StrEnum):
    CANDIDATE = "candidate"
    ACTIVATE = "activate"
    REVERT = "revert"
    WITHDRAW = "withdraw"


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants of a rollout's versions. `share` is of actors, 0..1, where `mode` splits them."""

    act: Act
    reason: str
    version: str | None = None
    mode: Comparison = Comparison.BOTH
    share: float | None = None
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True)
class _Change:
    after: RolloutState
    reason: str
    evidence: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Succession:
    """Only people call it: nothing here runs by the clock (law 4)."""

    levers: Levers
    experiments: Experiments
    versions: Versions
    ledger: Ledger
    now: Callable[[], datetime]

    async def change(self, name: str, wish: Wish, *, by: Principal) -> dict[str, Any]:
        """Carry a wish out under the row's lock; returns the transition.

        Raises `InvalidInput`, `NotFound`, `RevisionConflict`, `GateNotMet` with the candidate's whole gate,
        `Forbidden("role")`, and `Conflict` where the state of things does not allow it.
        """
        _check(wish)
        now = self.now()

        def work(tx: Transaction) -> dict[str, Any]:
            state, policy = self.levers.locked(tx, name, wish.expected_revision)
            change = self._change(tx, state, policy, wish, by=by, now=now)
            return move(
                tx,
                state,
                change.after,
                kind=wish.act.value,
                actor=by.key_id,
                reason=change.reason,
                now=now,
                evidence=change.evidence,
                **_baseline(tx, state, change.after),
            )

        transition = await self.levers.done(await self.ledger.run(work))
        await self.versions.keep_ready()
        return transition

    def _change(
        self,
        tx: Transaction,
        state: RolloutState,
        policy: RolloutPolicy,
        wish: Wish,
        *,
        by: Principal,
        now: datetime,
    ) -> _Change:
        match wish.act:
            case Act.CANDIDATE:
                version = _registered(tx, wish.version)
                after = with_candidate(state, version, mode=wish.mode, share=wish.share, now=now)
                return _Change(after, wish.reason)
            case Act.WITHDRAW:
                return _Change(withdrawn(state), wish.reason)
            case Act.ACTIVATE:
                return self._activate(tx, state, policy, wish, by=by, now=now)
            case Act.REVERT:
                return _revert(tx, state, wish, now=now)
            case _:
                assert_never(wish.act)

    def _activate(
        self,
        tx: Transaction,
        state: RolloutState,
        policy: RolloutPolicy,
        wish: Wish,
        *,
        by: Principal,
        now: datetime,
    ) -> _Change:
        """In shadow any version that is not suspect; above it only the candidate, when its gate passes."""
        version = _registered(tx, wish.version or state.candidate)
        if version in investigated(tx.connection):
            raise Conflict("investigation", f"{version} is under an open investigation: close it first")
        after = activated(state, version, exposure=first_exposure(policy, state), now=now)
        if state.phase is Phase.SHADOW:
            return _Change(after, wish.reason)
        if not by.may(Role.APPROVER):
            raise Forbidden("role", f"above shadow a version is activated by an {Role.APPROVER}")
        if version != state.candidate:
            said = f"{state.name} is in {state.phase}: only a candidate is activated there, not {version}"
            raise Conflict("not-candidate", said)
        gate = self.experiments.assess_for_activation(tx.connection, policy, state)
        if gate.outcome is not GateOutcome.PASS:
            raise GateNotMet(gate_document(gate))
        return _Change(after, wish.reason, gate_document(gate))


def _baseline(tx: Transaction, before: RolloutState, after: RolloutState) -> dict[str, str]:
    """Above shadow a version's answers are held against what it answered before it took over."""
    if Phase.SHADOW in (before.phase, after.phase) or before.version == after.version:
        return {}
    return {"baseline": json.dumps(latest_answers(tx.connection, after.name, version=after.version))}


def _revert(tx: Transaction, state: RolloutState, wish: Wish, *, now: datetime) -> _Change:
    """Back to the previous version without a gate; where that is suspect too, to shadow instead."""
    after = reverted(state, now=now)
    if after.version not in registered(tx.connection):
        raise Conflict("unknown-version", f"{after.version} is not registered: nothing can return to it")
    if after.version not in investigated(tx.connection):
        return _Change(after, wish.reason)
    said = f"{after.version} is under an open investigation and does not come back"
    if state.phase is Phase.SHADOW:
        raise Conflict("investigation", f"{said}; {state.name} is in shadow already")
    return _Change(reset_to_shadow(state, now=now), f"{wish.reason}; {said}: {state.name} goes to shadow")


def _registered(tx: Transaction, version: str | None) -> str:
    if version is None:
        raise InvalidInput([("version", "must be the id of a version")])
    if version not in registered(tx.connection):
        raise NotFound("version", version)
    return version


def _check(wish: Wish) -> None:
    if wish.act in (Act.REVERT, Act.WITHDRAW) and wish.version is not None:
        raise InvalidInput([("version", f"is not asked for: {wish.act} knows which one")])
    if wish.act is not Act.CANDIDATE and (wish.share is not None or wish.mode is not Comparison.BOTH):
        raise InvalidInput([("mode", "is for a candidate alone")])
    splits = wish.mode is Comparison.SPLIT
    if splits and (wish.share is None or not 0 < wish.share < 1):
        raise InvalidInput([("share", "must be a share of actors between 0 and 1, for mode split")])
    if not splits and wish.share is not None:
        raise InvalidInput([("share", "is for mode split alone")])
