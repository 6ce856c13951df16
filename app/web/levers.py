"""Which levers of a rollout can be pulled from outside, by whom, and what does each take?"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from app.domain.role import Principal, Role
from app.domain.rollout import Comparison
from app.errors import InvalidInput
from app.services.container import Services
from app.services.succession import Act, Wish
from app.web.bodies import Exposure, InvestigationClosed, Promote, RampChange, Reason, VersionChange

Pulled = Awaitable[dict[str, Any]]  # the transition

STEERING = (Role.OPERATOR, Role.APPROVER)


@dataclass(frozen=True, slots=True)
class Lever:
    """`pull` takes the services, the rollout's name, a `body` and who pulls."""

    body: type[msgspec.Struct]
    pull: Callable[[Services, str, Any, Principal], Pulled]
    roles: tuple[Role, ...] = STEERING


def _plain(
    of: Callable[[Services], Callable[..., Pulled]],
) -> Callable[[Services, str, Any, Principal], Pulled]:
    """One whose body is all that it takes."""
    return lambda services, name, data, by: of(services)(name, **msgspec.structs.asdict(data), by=by)


def _ramp(services: Services, name: str, data: RampChange, by: Principal) -> Pulled:
    if data.action == "stop":
        return services.ramps.stop(name, reason=data.reason, by=by)
    if data.expected_revision is None:
        raise InvalidInput([("expected_revision", "is needed to start: the revision that was looked at")])
    return services.ramps.start(
        name, to=data.to, reason=data.reason, expected_revision=data.expected_revision, by=by
    )


def _version(services: Services, name: str, data: VersionChange, by: Principal) -> Pulled:
    wish = Wish(
        act=Act(data.action),
        reason=data.reason,
        version=data.version,
        mode=Comparison(data.mode),
        share=data.share,
        expected_revision=data.expected_revision,
    )
    return services.succession.change(name, wish, by=by)


LEVERS = {
    "promote": Lever(Promote, _plain(lambda services: services.levers.promote)),
    "approve": Lever(Promote, _plain(lambda services: services.approvals.approve), (Role.APPROVER,)),
    "exposure": Lever(Exposure, _plain(lambda services: services.levers.expose)),
    "rollback": Lever(Reason, _plain(lambda services: services.levers.roll_back)),
    "hold": Lever(Reason, _plain(lambda services: services.levers.hold)),
    "resume": Lever(Reason, _plain(lambda services: services.levers.resume)),
    "investigation": Lever(InvestigationClosed, _plain(lambda services: services.levers.close_investigation)),
    "ramp": Lever(RampChange, _ramp),
    "version": Lever(VersionChange, _version),
}
