"""Where does each rollout stand, and which transitions brought it there?"""

import json
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, func, select, update

from app.domain.clock import from_us, to_us
from app.domain.phase import Phase
from app.domain.rollout import Comparison, Investigation, Ramp, RolloutState
from app.errors import NotFound, RevisionConflict
from app.store import tables as t
from app.store.counters import minute_of
from app.store.deliveries import Kind, enqueue
from app.store.history import transition_document
from app.store.ids import new_id
from app.store.people import name_of
from app.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class PlaneRow:
    """What holds for all rollouts. `revision` grows with every change that a snapshot must see."""

    kill_switch: bool
    kill_reason: str | None
    revision: int
    guard_passes: int
    guard_pass_us: int | None
    clock_jump_us: int | None
    chosen_version: str | None
    actor_secret: bytes


def read_plane(connection: Connection) -> PlaneRow:
    row = connection.execute(select(t.plane).where(t.plane.c.id == 1)).mappings().one()
    return PlaneRow(**{name: row[name] for name in PlaneRow.__dataclass_fields__})


def touch_plane(tx: Transaction, **values: Any) -> None:
    """Change the plane's row; every change grows its revision."""
    changes = {"revision": t.plane.c.revision + 1, **values}
    tx.connection.execute(update(t.plane).where(t.plane.c.id == 1).values(changes))


def load_states(connection: Connection, *, only: str | None = None) -> dict[str, RolloutState]:
    query = select(t.rollouts, *_INVESTIGATION).join_from(
        t.rollouts, t.investigations, t.rollouts.c.investigation_id == t.investigations.c.id, isouter=True
    )
    if only is not None:
        query = query.where(t.rollouts.c.name == only)
    return {row["name"]: _state(row) for row in connection.execute(query).mappings()}


def lock_state(tx: Transaction, name: str) -> RolloutState:
    """The state as nobody else can change it before this transaction ends."""
    locked = select(t.rollouts.c.name).where(t.rollouts.c.name == name).with_for_update()
    if tx.connection.execute(locked).one_or_none() is None:
        raise NotFound("rollout", name)
    return load_states(tx.connection, only=name)[name]


def insert_state(tx: Transaction, state: RolloutState, *, settings_hash: str) -> None:
    tx.insert(t.rollouts, {**_columns(state), "settings_hash": settings_hash})


def settings_hashes(connection: Connection) -> dict[str, str]:
    return {
        row.name: row.settings_hash
        for row in connection.execute(select(t.rollouts.c.name, t.rollouts.c.settings_hash))
    }


def baselines(connection: Connection) -> dict[str, dict[str, int]]:
    """The model's answers and its pairs in each rollout's last shadow epoch, by label."""
    rows = connection.execute(select(t.rollouts.c.name, t.rollouts.c.baseline))
    return {row.name: json.loads(row.baseline) for row in rows if row.baseline}


def save_state(tx: Transaction, state: RolloutState, *, was: int, **columns: Any) -> None:
    """Compare-and-set on the revision; raises `RevisionConflict` when someone was first."""
    changed = tx.connection.execute(
        update(t.rollouts)
        .where(t.rollouts.c.name == state.name, t.rollouts.c.revision == was)
        .values(**_columns(state), **columns)
    )
    if changed.rowcount != 1:
        actual = tx.connection.execute(
            select(t.rollouts.c.revision).where(t.rollouts.c.name == state.name)
        ).scalar_one()
        raise RevisionConflict(was, actual)
    touch_plane(tx)


def record_transition(
    tx: Transaction,
    *,
    rollout: str,
    kind: str,
    before: dict[str, Any],
    after: dict[str, Any],
    actor: str,
    automatic: bool,
    reason: str,
    evidence: dict[str, Any] | None,
    revision: int,
    now_us: int,
) -> dict[str, Any]:
    """One row per change, told to whoever wants to know of it; returns its wire form."""
    row = {
        "id": new_id(),
        "created_us": now_us,
        "rollout": rollout,
        "kind": kind,
        "from_state": json.dumps(before),
        "to_state": json.dumps(after),
        "actor": actor,
        "automatic": automatic,
        "reason": reason,
        "evidence": None if evidence is None else json.dumps(evidence),
        "revision": revision,
    }
    tx.insert(t.transitions, row)
    transition = transition_document({**row, "actor_name": name_of(tx.connection, actor)})
    told = {name: value for name, value in transition.items() if name != "evidence"}
    enqueue(tx, kind=Kind.TRANSITION, body=told, now_us=now_us)
    return transition


def open_investigation(
    tx: Transaction, state: RolloutState, *, version: str, transition_id: str, now_us: int
) -> None:
    row = {
        "id": new_id(),
        "rollout": state.name,
        "version": version,
        "opened_us": now_us,
        "transition_id": transition_id,
    }
    tx.insert(t.investigations, row)
    tx.connection.execute(
        update(t.rollouts).where(t.rollouts.c.name == state.name).values(investigation_id=row["id"])
    )


def close_investigation(tx: Transaction, rollout: str, investigation: Investigation) -> None:
    """Close the rollout's latest investigation, and with it those that it came on top of."""
    assert investigation.closed_at is not None
    tx.connection.execute(
        update(t.investigations)
        .where(t.investigations.c.rollout == rollout, t.investigations.c.closed_us.is_(None))
        .values(
            cause=investigation.cause,
            fix=investigation.fix,
            closed_us=to_us(investigation.closed_at),
            closed_by=investigation.closed_by,
        )
    )
    touch_plane(tx)


def investigated(connection: Connection) -> frozenset[str]:
    """The versions that an open investigation of any rollout looks into."""
    still_open = select(t.investigations.c.version).where(t.investigations.c.closed_us.is_(None))
    return frozenset(connection.execute(still_open).scalars())


def rollback_reason(connection: Connection, investigation: Investigation) -> str:
    """Why the rollback came that an investigation looks into."""
    of = t.transitions.c.id == t.investigations.c.transition_id
    found = select(t.transitions.c.reason).join_from(t.investigations, t.transitions, of)
    return str(connection.execute(found.where(t.investigations.c.id == investigation.id)).scalar_one())


def rollback_reasons(connection: Connection) -> dict[str, str]:
    """`rollback_reason` of every rollout that has an investigation, by its name."""
    of = t.transitions.c.id == t.investigations.c.transition_id
    found = select(t.rollouts.c.name, t.transitions.c.reason).select_from(
        t.rollouts.join(t.investigations, t.investigations.c.id == t.rollouts.c.investigation_id).join(
            t.transitions, of
        )
    )
    return dict(map(tuple, connection.execute(found)))


def served_s_since(connection: Connection, rollout: str, *, version: str, since_us: int) -> int:
    """Seconds that a version was served in a rollout, over its epochs, from an instant on."""
    c = t.evidence_counters.c
    query = select(func.sum(c.n)).where(
        c.rollout == rollout, c.version == version, c.metric == "served_s", c.minute >= minute_of(since_us)
    )
    return int(connection.execute(query).scalar_one() or 0)


def brief(state: RolloutState) -> dict[str, Any]:
    """What a transition keeps of the state on either side."""
    kept = ("phase", "exposure", "version", "candidate", "held", "epoch", "revision")
    return {name: getattr(state, name) for name in kept}


_INVESTIGATION = [
    t.investigations.c[name].label(f"i_{name}")
    for name in ("id", "version", "opened_us", "cause", "fix", "closed_us", "closed_by")
]


_SAME = (  # in a row and in a state
    *("name", "exposure", "revision", "epoch", "version", "candidate", "candidate_share", "previous"),
    *("held", "hold_reason", "rolled_back"),
)


def _state(row: RowMapping) -> RolloutState:
    investigation = None
    if row["i_id"] is not None:
        investigation = Investigation(
            id=row["i_id"],
            opened_at=from_us(row["i_opened_us"]),
            version=row["i_version"],
            cause=row["i_cause"],
            fix=row["i_fix"],
            closed_at=None if row["i_closed_us"] is None else from_us(row["i_closed_us"]),
            closed_by=row["i_closed_by"],
        )
    return RolloutState(
        **{name: row[name] for name in _SAME},
        phase=Phase(row["phase"]),
        epoch_started_at=from_us(row["epoch_started_us"]),
        investigation=investigation,
        candidate_mode=None if row["candidate_mode"] is None else Comparison(row["candidate_mode"]),
        candidate_since=None if row["candidate_since_us"] is None else from_us(row["candidate_since_us"]),
        ramp=None if row["ramp"] is None else msgspec.json.decode(row["ramp"], type=Ramp),
    )


def _columns(state: RolloutState) -> dict[str, Any]:
    return {
        **{name: getattr(state, name) for name in _SAME},
        "phase": state.phase.value,
        "epoch_started_us": to_us(state.epoch_started_at),
        "candidate_mode": state.candidate_mode.value if state.candidate_mode else None,
        "candidate_since_us": to_us(state.candidate_since) if state.candidate_since else None,
        "investigation_id": state.investigation.id if state.investigation else None,
        "ramp": msgspec.json.encode(state.ramp).decode() if state.ramp else None,
    }
