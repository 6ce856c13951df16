"""What are versions validated on, how did each do, and what does a new run say?"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, FromQuery, URLEncodedBody

from app.domain.role import Role
from app.services.container import Services
from app.services.ports import statuses
from app.web.authentication import Asked, principal_of, services_of
from app.web.console.access import seen_by
from app.web.console.pages import page

_SEE = [seen_by(Role.OPERATOR, Role.APPROVER, Role.AUDITOR)]
_BESIDE = 4  # versions whose answers stand beside the cases of a suite


class Run(msgspec.Struct):
    """Which version to ask, of one suite or of all, and what to hold it against; empty is none."""

    version: str
    suite: str = ""
    against: str = ""
    reasons: str = ""


@get("/suites", guards=_SEE, sync_to_thread=True)
def suites(request: Asked, version: FromQuery[str | None] = None) -> Response[bytes]:
    services = services_of(request)
    found, scores = services.suites.all(), services.suites.scores()
    return page(
        request,
        "suites.html",
        title="Suites",
        suites=found,
        versions=_versions(services, {score["version"] for score in scores}),
        scores={(score["version"], score["suite"]): score for score in scores},
        chosen=version or services.models.default.version_id,
    )


@get("/suites/{name:str}", guards=_SEE, sync_to_thread=True)
def suite(
    request: Asked, name: FromPath[str], *, tag: FromQuery[str] = "", failed: FromQuery[bool] = False
) -> Response[bytes]:
    """The situations of a suite, with what versions last said; `failed` leaves out what all of them passed."""
    services = services_of(request)
    found = services.suites.one(name)
    scores = [score for score in services.suites.scores() if score["suite"] == name][:_BESIDE]
    wrong = {case for score in scores for case, told in score["answers"].items() if not told["passed"]}
    cases = [
        case
        for case in found["cases"]
        if (not tag or tag in case["tags"]) and (not failed or case["id"] in wrong)
    ]
    shown: dict[str, Any] = {"suite": found, "scores": scores, "cases": cases, "tag": tag, "failed": failed}
    return page(request, "suite.html", title=f"Suite {name}", **shown)


@post("/suites/run", status_code=200, guards=[seen_by(Role.OPERATOR, Role.APPROVER)])
async def run(request: Asked, data: URLEncodedBody[Run]) -> Response[bytes]:
    """The report as a part of the page; it takes up to minutes, and is recorded whoever still waits for it."""
    report = await services_of(request).validations.run(
        data.version,
        suites=[data.suite] if data.suite else [],
        against=data.against or None,
        reasons=bool(data.reasons),
        by=principal_of(request),
    )
    return page(request, "validation_part.html", headers={"HX-Trigger": "validated"}, report=report)


@get("/validations/{name:str}", guards=_SEE, sync_to_thread=True)
def validation(request: Asked, name: FromPath[str]) -> Response[bytes]:
    report = services_of(request).validations.one(name)
    return page(request, "validation.html", title=f"Validation of {report['version']}", report=report)


def _versions(services: Services, validated: Iterable[str]) -> list[Mapping[str, Any]]:
    """Every version: whether this server can ask it now, else why not, and whether it was validated."""
    status = statuses(services.models)
    return [
        {
            "id": each["id"],
            "loaded": each["loaded"],
            "why": status[each["id"]].error if each["id"] in status else None,
            "validated": each["id"] in validated,
        }
        for each in reversed(services.registry.all())
    ]
