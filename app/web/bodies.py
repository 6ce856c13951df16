"""What may a request hold, how large may it be, and how are the texts in it read?"""

import hashlib
from typing import Any, Literal

import msgspec
from litestar import Request
from litestar.exceptions import ClientException, HTTPException

from app.domain.clock import instant, to_us
from app.domain.phase import Phase
from app.domain.situation import MAX_SITUATION_BYTES
from app.errors import InvalidInput

MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_BATCH = 1_000

_decode = msgspec.json.Decoder().decode


class TooLarge(HTTPException):
    status_code = 413


async def read_body(request: Request[Any, Any, Any], *, at_most: int = MAX_SITUATION_BYTES) -> bytes:
    """The raw body. Raises `TooLarge` as soon as it is, without reading on."""
    declared = header(request, b"content-length") or "0"
    if declared.isdigit() and int(declared) > at_most:
        raise TooLarge(detail=f"the body is larger than {at_most} bytes")
    body = b""
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise ClientException("the connection ended before the body did")
        body += message.get("body", b"")
        if len(body) > at_most:
            raise TooLarge(detail=f"the body is larger than {at_most} bytes")
        if not message.get("more_body"):
            return body


def header(request: Request[Any, Any, Any], wanted: bytes) -> str | None:
    """One header's value, without building Litestar's whole table of them."""
    for name, value in request.scope["headers"]:
        if name == wanted:
            return value.decode("latin-1")
    return None


def decode(body: bytes) -> Any:
    """JSON to plain values. Raises a 400 that says where the text is wrong."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ClientException(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise ClientException("the body is nested too deeply") from error


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def instant_us(field: str, text: str | None) -> int | None:
    """An RFC 3339 instant in microseconds; without an offset it is UTC. Raises `InvalidInput`."""
    if text is None:
        return None
    try:
        return to_us(instant(text))
    except ValueError as error:
        raise InvalidInput([(field, "must be a time such as 2026-01-31T12:00:00Z")]) from error


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """What a person writes says something, and can be kept: nobody turns a lever without saying why."""

    def __post_init__(self) -> None:
        for field in ("reason", "fix"):
            text = getattr(self, field, "none is asked for")
            if not text.strip() or "\x00" in text:  # PostgreSQL keeps no NUL
                raise InvalidInput([(field, "must be a non-empty text without NUL characters")])


class Promote(_Body):
    """`to` is the next phase up; `expected_revision` the one that was looked at."""

    to: Phase
    reason: str
    expected_revision: int


class NewFreeze(_Body):
    """`kind`: deny or allow. Times without an offset are those of `zone`, an IANA name; `*` is every rollout."""

    kind: str
    starts_at: str
    ends_at: str
    reason: str
    rollout: str = "*"
    weekly: bool = False
    zone: str = "UTC"


class Reason(_Body):
    reason: str


class Exposure(_Body):
    """`exposure` is a share of actors, 0..1."""

    exposure: float
    reason: str
    expected_revision: int | None = None


class RampChange(_Body):
    """Start automatic steps of exposure up to the share `to`, 0..1, or stop them.

    A start needs `expected_revision`.
    """

    action: Literal["start", "stop"]
    reason: str
    to: float = 1.0
    expected_revision: int | None = None


class VersionChange(_Body):
    """What becomes of a rollout's versions. `mode` and `share` (of actors, 0..1) are a candidate's."""

    action: Literal["candidate", "activate", "revert", "withdraw"]
    reason: str
    version: str | None = None
    mode: Literal["both", "split"] = "both"
    share: float | None = None
    expected_revision: int | None = None


class InvestigationClosed(_Body):
    cause: str
    fix: str


class KillSwitch(_Body):
    engaged: bool
    reason: str


class NewKey(_Body):
    """`actors` are the actor ids that are this person's own."""

    name: str
    roles: list[str]
    actors: list[str] = []
    expires_at: str | None = None


class NewUser(_Body):
    """`actors` are the actor ids that are this person's own."""

    name: str
    roles: list[str]
    actors: list[str] = []


class Roles(_Body):
    roles: list[str]


class OwnActors(_Body):
    """All of them: what is not named any more is taken away."""

    actors: list[str]


class Content(_Body):
    """How content a reviewer is with the model's help: 1, not at all, to 5."""

    score: int
    comment: str | None = None


class NewWebhook(_Body):
    """`kinds`: transition, guardrail, report, review_backlog; all of them if empty."""

    url: str
    kinds: list[str] = []


class Fault(_Body):
    """hang, crash, garbage, slow:<ms>, or null to end it."""

    fault: str | None


class Validate(_Body):
    """`suites` are names of files in policies/suites, all of them if empty; `against` is a version.

    `reasons` asks why of all situations, not of every tenth: about eight times as long.
    """

    suites: list[str] = []
    against: str | None = None
    reasons: bool = False
