"""Which versions are there, what are they made of, how did they do, and where might one be tried next?"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, URLEncodedBody

from app.domain.role import Role
from app.domain.rollout import Comparison, RolloutState
from app.services.container import Services
from app.services.ports import statuses
from app.services.succession import Act, Wish
from app.web.authentication import Asked, principal_of, services_of
from app.web.bodies import Reason
from app.web.console.access import seen_by
from app.web.console.forms import filled_in
from app.web.console.pages import goes_to, page

_SEE = [seen_by(Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]
_ROLES = ("active", "candidate", "previous", "retired")
_STATES = (*_ROLES, "registered")


class Registered(msgspec.Struct):
    """The id of a version that a file of policies/versions declares."""

    id: str


class Candidate(Reason):
    """`share` is of actors, 0..1, for the mode `split` alone."""

    rollout: str
    mode: Comparison = Comparison.BOTH
    share: float | None = None


@get("/versions", guards=_SEE, sync_to_thread=True)
def versions(request: Asked) -> Response[bytes]:
    services = services_of(request)
    return page(
        request,
        "versions.html",
        title="Versions",
        versions=[_shown(services, each) for each in _in_order(services.registry.all())],
        health=statuses(services.models),
        validations=services.validations.latest(),
        waiting=services.lineage.waiting(),
        experiments=services.experiments.all(),
    )


@post("/versions", guards=[seen_by(Role.OPERATOR)])
async def register(request: Asked, data: URLEncodedBody[Registered]) -> Response[bytes]:
    version = await services_of(request).registry.register({"id": data.id.strip()}, principal_of(request))
    return goes_to(request, f"/versions/{version['id']}")


@get("/versions/{version_id:str}", guards=_SEE, sync_to_thread=True)
def version(request: Asked, version_id: FromPath[str]) -> Response[bytes]:
    services = services_of(request)
    found = _shown(services, services.registry.one(version_id))
    lineage = services.lineage.of(version_id)  # before its validations: it may have to learn of the version
    return page(
        request,
        "version.html",
        title=version_id,
        version=found,
        lineage=lineage,
        health=statuses(services.models).get(version_id),
        validations=services.validations.of(version_id),
        open_to=_open_to(services, version_id),
    )


@post("/versions/{version_id:str}/candidate", guards=[seen_by(Role.OPERATOR, Role.APPROVER)])
async def make_candidate(request: Asked, version_id: FromPath[str]) -> Response[bytes]:
    """Have a rollout compare the version with its active one."""
    data = await filled_in(request, Candidate)
    wish = Wish(Act.CANDIDATE, data.reason, version_id, data.mode, data.share)
    await services_of(request).succession.change(data.rollout, wish, by=principal_of(request))
    return goes_to(request, f"/rollouts/{data.rollout}")


def _in_order(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is in use first, then the newest."""
    newest_first = list(reversed(found))
    return sorted(newest_first, key=lambda each: _STATES.index(each["state"]))


def _shown(services: Services, found: Mapping[str, Any]) -> dict[str, Any]:
    """A version with its rollouts by what it is to them, in the order of the policy."""
    order = [policy.name for policy in services.plane.view.policy.book.policies]
    roles = found["rollouts"]
    uses = {role: [name for name in order if roles.get(name) == role] for role in _ROLES}
    return {**found, "uses": {role: names for role, names in uses.items() if names}}


def _open_to(services: Services, version_id: str) -> list[RolloutState]:
    """The rollouts that might try the version: they run on another, and have no candidate."""
    states = services.plane.view.states.values()
    return [state for state in states if state.version != version_id and state.candidate is None]
