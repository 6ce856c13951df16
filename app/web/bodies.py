"""What may a request body hold, and how large may it be?"""

import hashlib
from typing import Any, Literal

import msgspec
from litestar import Request
from litestar.exceptions import ClientException, HTTPException

from app.domain.situation import MAX_SITUATION_BYTES

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


class Promote(msgspec.Struct, forbid_unknown_fields=True):
    """`to` is the next phase up; `expected_revision` the one that was looked at."""

    to: str
    reason: str
    expected_revision: int


class Reason(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    expected_revision: int | None = None


class Exposure(msgspec.Struct, forbid_unknown_fields=True):
    """`exposure` is a share of actors, 0..1."""

    exposure: float
    reason: str
    expected_revision: int | None = None


class VersionChange(msgspec.Struct, forbid_unknown_fields=True):
    """What becomes of a rollout's versions. `mode` and `share` (of actors, 0..1) are a candidate's."""

    action: Literal["candidate", "activate", "revert", "withdraw"]
    reason: str
    version: str | None = None
    mode: Literal["both", "split"] = "both"
    share: float | None = None
    expected_revision: int | None = None


class InvestigationClosed(msgspec.Struct, forbid_unknown_fields=True):
    cause: str
    fix: str


class KillSwitch(msgspec.Struct, forbid_unknown_fields=True):
    engaged: bool
    reason: str


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """`actors` are the actor ids that are this person's own."""

    name: str
    roles: list[str]
    actors: list[str] = []
    expires_at: str | None = None


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """hang, crash, garbage, slow:<ms>, or null to end it."""

    fault: str | None
