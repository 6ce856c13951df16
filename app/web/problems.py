"""How does an error look to whoever called? As application/problem+json (RFC 9457), in one place."""

import re
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from app import errors
from app.observability import REQUEST_ID, Event, begin_request

log = structlog.get_logger()

_MEMBER = re.compile(r"field `([^`]+)`")

_PLAIN = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"^Object missing required field `[^`]+`", "is required"),
        (r"^Object contains unknown field `[^`]+`", "is not a member here"),
        (r"^Invalid enum value ", "must be one of those that the reference lists, not "),
        (r"^Expected `([^`]+)`, got `([^`]+)`", r"must be \1, not \2"),
        (r"^Expected `([^`]+)` ", r"must be \1 "),
        (r"\bstr\b", "text"),
        (r"\bint\b", "a whole number"),
        (r"\bfloat\b", "a number"),
        (r"\bbool\b", "true or false"),
        (r" \| ", " or "),
    )
)

MEDIA_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[errors.PhasegateError], int, str], ...] = (
    (errors.InvalidSituation, 422, "invalid-situation"),
    (errors.InvalidInput, 422, "invalid-input"),
    (errors.NotFound, 404, "not-found"),
    (errors.Forbidden, 403, "forbidden"),
    (errors.Conflict, 409, "conflict"),
    (errors.StoreUnavailable, 503, "store-unavailable"),
    (errors.NotRecorded, 503, "not-recorded"),
    (errors.PolicyError, 422, "policy-error"),
)


def problem_of(error: Exception) -> dict[str, Any]:
    """The problem document of any exception: stable `type`, and facts as further members."""
    for kind, status, name in _STATUS:
        if isinstance(error, kind):
            return {**_base(status, getattr(error, "code", name), str(error)), **_facts(error)}
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        found = [item for item in error.extra if isinstance(item, dict)]
        of_body = any(item.get("source") == "body" for item in found)
        status, name = (422, "invalid-input") if of_body else (400, "bad-request")
        findings = [_finding(item) for item in found]
        detail = "; ".join(f"{each['field']}: {each['message']}" for each in findings)
        return {**_base(status, name, detail or str(error.detail)), "errors": findings}
    if isinstance(error, HTTPException):
        return _base(error.status_code, _slug(error.status_code), str(error.detail))
    return _base(500, "internal-error", "something went wrong here; the log of this request id says what")


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for everything that is raised."""
    headers = dict(getattr(error, "headers", None) or {})
    if "auth" not in dict(request.scope):  # no route, so no gatekeeper
        headers["X-Request-ID"] = begin_request(request.headers.get("x-request-id"))
    problem = problem_of(error)
    told(request, problem, error)
    if problem["status"] == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="phasegate"'
    if problem["status"] == 503:
        headers["Retry-After"] = "1"
    return Response(
        msgspec.json.encode(problem), status_code=problem["status"], media_type=MEDIA_TYPE, headers=headers
    )


def told(request: Request[Any, Any, Any], problem: dict[str, Any], error: Exception) -> None:
    """The log hears of what is our fault."""
    if problem["status"] >= 500:
        log.error(Event.REQUEST_FAILED, path=_path(request), status=problem["status"], exc_info=error)


def _path(request: Request[Any, Any, Any]) -> str:
    """Without what lets somebody in."""
    path = request.url.path
    return "/sign-in/…" if path.startswith("/sign-in/") else path


def _base(status: int, kind: str, detail: str) -> dict[str, Any]:
    return {
        "type": kind,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": REQUEST_ID.get(),
    }


def _facts(error: errors.PhasegateError) -> dict[str, Any]:
    match error:
        case errors.InvalidSituation() | errors.InvalidInput():
            return {"errors": [{"field": field, "message": message} for field, message in error.fields]}
        case errors.GateNotMet():
            return {"gate": error.gate}
        case errors.RevisionConflict():
            return {"expected_revision": error.expected, "revision": error.actual}
        case errors.CeilingReached():
            return {"rollout": error.rollout, "ceiling": error.ceiling}
        case _:
            return {}


def _finding(item: dict[str, Any]) -> dict[str, str]:
    """Litestar says `data` where the body lacks or has a member too many; its message names that one."""
    key, message = str(item.get("key", "")), str(item.get("message", ""))
    named = _MEMBER.search(message) if key == "data" else None
    for pattern, words in _PLAIN:
        message = pattern.sub(words, message)
    return {"field": named[1] if named else key, "message": message}


def _slug(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "-")
