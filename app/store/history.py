"""Which changes of rollouts and of the plane match a question, and what does each say in a sentence?"""

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, or_, select

from app.domain.clock import rfc3339
from app.domain.condition import percent
from app.store import tables as t
from app.store.people import PEOPLE


@dataclass(frozen=True, slots=True)
class TransitionFilters:
    """Which transitions; None means any. `who` is an id or a name; times in microseconds, the end excluded."""

    rollout: str | None = None
    kind: str | None = None
    who: str | None = None
    automatic: bool | None = None
    since_us: int | None = None
    until_us: int | None = None


def list_transitions(
    connection: Connection, rollout: str | None, *, limit: int = 100
) -> list[dict[str, Any]]:
    """Newest first; those of one rollout include the kill switch's."""
    return find_transitions(connection, TransitionFilters(rollout), limit=limit)


def find_transitions(
    connection: Connection, filters: TransitionFilters, *, limit: int, cursor: str | None = None
) -> list[dict[str, Any]]:
    """Newest first; `cursor` is the id after which to go on."""
    person, c = PEOPLE.c, t.transitions.c
    query = (
        select(t.transitions, person.name.label("actor_name"))
        .join(PEOPLE, person.id == c.actor, isouter=True)
        .order_by(c.id.desc())
        .limit(limit)
    )
    for value, condition in (
        (cursor, c.id < (cursor or "")),
        (filters.rollout, c.rollout.in_((filters.rollout, "*"))),
        (filters.kind, c.kind == filters.kind),
        (filters.who, or_(c.actor == filters.who, person.name == filters.who)),
        (filters.automatic, c.automatic == filters.automatic),
        (filters.since_us, c.created_us >= (filters.since_us or 0)),
        (filters.until_us, c.created_us < (filters.until_us or 0)),
    ):
        if value is not None:
            query = query.where(condition)
    return [transition_document(row) for row in connection.execute(query).mappings()]


def transition_document(row: RowMapping | dict[str, Any]) -> dict[str, Any]:
    """The wire form of a row of `transitions` with the `actor_name` of who made it."""
    plain = ("id", "rollout", "kind", "actor", "actor_name", "automatic", "reason", "revision")
    told = {
        **{name: row[name] for name in plain},
        "at": rfc3339(row["created_us"]),
        "from": json.loads(row["from_state"]),
        "to": json.loads(row["to_state"]),
        "evidence": None if row["evidence"] is None else json.loads(row["evidence"]),
    }
    return {**told, "sentence": _sentence(told)}


# What somebody did to a rollout, and the members of its new state that say so already.
_DONE = {
    "promote": ("promoted {it} to {phase}", {"phase"}),
    "rollback": ("rolled {it} back to {phase}", {"phase"}),
    "exposure": ("changed the exposure of {it}", set[str]()),
    "ramp": ("changed the ramp of {it}", set[str]()),
    "hold": ("held {it}", {"held"}),
    "resume": ("resumed {it}", {"held"}),
    "investigation": ("closed the investigation of {it}", set[str]()),
    "approval": ("approved {it} for {approved}", {"approved"}),
    "approval_void": ("took back the approval of {it}", {"approved"}),
    "candidate": ("made {candidate} the candidate of {it}", {"candidate"}),
    "activate": ("activated {version} in {it}", {"version", "candidate"}),
    "revert": ("reverted {it} to {version}", {"version"}),
    "withdraw": ("withdrew the candidate of {it}", {"candidate"}),
    "version": ("took {it} to {version}", {"version"}),
    "policy": ("applied another policy to {it}", set[str]()),
}
_BEGUN_OR_ENDED = {  # of these the new state says which
    "kill_switch": ("engaged the kill switch", "released the kill switch"),
    "freeze": ("declared a freeze of {it}", "ended a freeze of {it}"),
    "webhook": ("added the webhook {webhook}", "removed the webhook {was}"),
}


def _sentence(transition: dict[str, Any]) -> str:
    """`oscar promoted read to advisory: …`, `the service rolled read back to shadow by itself: …`; the reason
    as it was written.
    """
    before, after, kind = transition["from"], transition["to"], transition["kind"]
    done, known = _DONE.get(kind, (kind.replace("_", " ") + " of {it}", set[str]()))
    if kind in _BEGUN_OR_ENDED:
        begun, ended = _BEGUN_OR_ENDED[kind]
        done, known = (begun if after.get(kind) else ended), {kind}
    it = "every rollout" if transition["rollout"] == "*" else transition["rollout"]
    by, itself = transition["actor_name"] or transition["actor"], ""
    if transition["automatic"]:
        by, itself = "the service", " by itself"
    changes = [
        _change(name.replace("_", " "), before.get(name), value)
        for name, value in after.items()
        if name not in known | {"epoch", "revision", "hold_reason"} and before.get(name) != value
    ]
    said = (
        f"{by} {done.format_map(defaultdict(lambda: 'another', after, it=it, was=before.get(kind)))}{itself}"
    )
    return f"{', '.join([said, *changes])}: {transition['reason']}"


def _change(name: str, before: Any, after: Any) -> str:
    if isinstance(after, bool):
        return name if after else f"no longer {name}"
    if after is None:
        return f"no {name} any more"
    if name == "exposure":
        before, after = percent(before or 0), percent(after)
    return f"{name} {after}" if before is None else f"{name} {before} to {after}"
