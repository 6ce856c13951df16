"""Where does one rollout stand, what speaks for and against it, and which levers are there?"""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery

from app.domain.assessment import closeness
from app.domain.condition import span
from app.domain.decision import Decision
from app.domain.phase import Phase
from app.domain.role import Role
from app.errors import Conflict, RevisionConflict
from app.services.levers import CAUSES
from app.web.authentication import Asked, principal_of, services_of
from app.web.console.access import seen_by
from app.web.console.forms import filled_in
from app.web.console.pages import goes_to, page
from app.web.levers import LEVERS, STEERING

_SEE = [seen_by(Role.REVIEWER, Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]
_SHOWN = 40  # transitions
_DAY_S = 86_400


@get("/rollouts/{name:str}", guards=_SEE, sync_to_thread=True)
def rollout(request: Asked, name: FromPath[str], to: FromQuery[Phase | None] = None) -> Response[bytes]:
    """`to` is the phase whose gate is shown; without it, the next one's."""
    services = services_of(request)
    one = services.rollouts.one(name)
    gate = one["gate"] if to in (None, Phase.SHADOW) else services.rollouts.gate(name, to)
    principal = principal_of(request)
    close = services.close_ups.of(name, principal)
    return page(
        request,
        "rollout.html",
        title=name,
        one=one,
        steps=_ladder(one),
        gate=gate,
        earliest=None if gate is None else _earliest(gate["conditions"]),
        close=close,
        guardrails=_grouped(one["guardrails"], close["course"]),
        evidence=close["evidence"],
        transitions=services.rollouts.transitions(name, limit=_SHOWN),
        experiment=services.experiments.of(name),
        versions=[version["id"] for version in services.registry.all()],
        loaded={model.version_id for model in services.models.loaded},
        causes=CAUSES,
        steers=principal.may(*STEERING),
        approves=principal.may(Role.APPROVER),
        closeness=closeness,
        cell=_cell,
    )


def _grouped(
    guardrails: Iterable[Mapping[str, Any]], course: Mapping[str, Any]
) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Those that have something to show come first; the quiet ones take little room."""
    groups: dict[str, list[Mapping[str, Any]]] = {"telling": [], "quiet": []}
    for each in guardrails:
        has_seen = each["n"] or len(course.get(each["name"], ())) > 1
        groups["telling" if has_seen else "quiet"].append(each)
    return [(kind, group) for kind, group in groups.items() if group]


def _ladder(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The phases from below, each `past`, `present`, `next`, `later` or `beyond` the ceiling."""
    present, ceiling = Phase(one["phase"]), Phase(one["ceiling"])
    steps = []
    for phase in Phase:
        above = phase.rank - present.rank
        place = {-1: "past", 0: "present", 1: "next"}.get(max(above, -1), "later")
        if phase.rank > ceiling.rank:
            place = "beyond"
        steps.append({"phase": phase.value, "place": place, "is_ceiling": phase is ceiling})
    return steps


def _earliest(conditions: Iterable[Mapping[str, Any]]) -> str | None:
    """How long the slowest condition takes, where that is known of all that are not met."""
    etas = [each["eta"] for each in conditions if each["outcome"] != "pass"]
    known = [eta for eta in etas if eta is not None]
    return span(max(known) / _DAY_S) if known and len(known) == len(etas) else None


def _cell(
    one: Mapping[str, Any], evidence: Mapping[str, Any], legacy: Decision, model: Decision
) -> dict[str, Any]:
    """One cell of legacy against model: how many, their share, and the address of exactly these decisions."""
    n, whole = evidence["confusion"].get(f"{legacy}>{model}", 0), evidence["agreement"]["n"]
    query = {
        "rollout": one["name"],
        "epoch": one["epoch"],
        "version": one["version"],
        "legacy": legacy,
        "model": model,
    }
    return {
        "n": n,
        "share": n / whole if whole else None,
        "address": f"/decisions?{urlencode(query)}",
        "kind": "agree" if legacy is model else "laxer" if model.severity < legacy.severity else "stricter",
    }


def _lever(act: str) -> HTTPRouteHandler:
    lever = LEVERS[act]

    @post(f"/rollouts/{{name:str}}/{act}", status_code=200, guards=[seen_by(*lever.roles)])
    async def pulled(request: Asked, name: FromPath[str]) -> Response[bytes]:
        data = await filled_in(request, lever.body)
        try:
            await lever.pull(services_of(request), name, data, principal_of(request))
        except RevisionConflict as conflict:
            said = f"{name} has moved since this page was loaded: reload it and look again ({conflict})"
            raise Conflict(conflict.code, said) from conflict
        return goes_to(request, f"/rollouts/{quote(name, safe='')}")

    return pulled


promote, approve, exposure, rollback = map(_lever, ("promote", "approve", "exposure", "rollback"))
hold, resume, investigation = map(_lever, ("hold", "resume", "investigation"))
ramp, version = map(_lever, ("ramp", "version"))
