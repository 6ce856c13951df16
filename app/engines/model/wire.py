"""What do the web process and the model worker say to each other?

A frame is a header (length of the body, request id) and a msgpack body. The id stands outside the
body so that a body that cannot be read still says whose answer it would have been. Deadlines are
absolute on the monotonic clock, which all processes of a machine share.
"""

import struct
from enum import IntEnum

import msgspec
from msgspec import Struct

from app.domain.advisory import Advisory, Outcome, Probabilities
from app.domain.decision import Decision
from app.engines.model.prompt import Line
from app.engines.model.reasons import Effect
from app.engines.model.version import ModelVersion

HEADER = struct.Struct(">IQ")
MAX_BODY = 4 * 1024 * 1024
NO_REQUEST = 0  # the id of frames that belong to no request


class Priority(IntEnum):
    """Lower is served first."""

    BINDING = 0
    ADVISORY = 1
    SHADOW = 2
    REASONING = 3


class Load(Struct, frozen=True, tag="load"):
    """The first frame: what the worker is for.

    Its versions have one `runtime_key`; their greatest `n_ctx` is the context's.
    """

    versions: tuple[ModelVersion, ...]
    policies_dir: str
    cache_dir: str
    model_path: str | None
    fault: str | None


class Prepare(Struct, frozen=True, tag="prepare"):
    """Take one more version in, beside those loaded. Answered by `Prepared`, under no request's id."""

    version: ModelVersion


class Drop(Struct, frozen=True, tag="drop"):
    """Forget a version; what it is still asked is `unavailable`. Not answered."""

    version: str


class Ask(Struct, frozen=True, tag="ask"):
    """Let a version, by its id, decide one situation."""

    priority: Priority
    deadline: float
    lines: tuple[Line, ...]
    version: str


class Explain(Struct, frozen=True, tag="explain"):
    """Find the reasons for a decision that was given with `confidence`."""

    deadline: float
    lines: tuple[Line, ...]
    decision: Decision
    confidence: float
    version: str


class Cancel(Struct, frozen=True, tag="cancel"):
    """Nobody waits for this request any more. It is answered all the same."""


class Misbehave(Struct, frozen=True, tag="misbehave"):
    """Drills: `hang`, `crash`, `garbage`, `slow:<ms>` or nothing from now on."""

    fault: str | None


class Loaded(Struct, frozen=True, tag="loaded"):
    """`device` says in words what computes: `CPU, 2 threads`, `NVIDIA H100, 31 of 31 layers`."""

    sha256: str
    load_s: float
    offloaded_layers: int
    device: str | None = None


class Failed(Struct, frozen=True, tag="failed"):
    """The model, or one of the first versions, cannot be loaded."""

    error: str


class Prepared(Struct, frozen=True, tag="prepared"):
    """A version can be asked from now on, or cannot be taken in, and why."""

    version: str
    error: str | None = None


class Progress(Struct, frozen=True, tag="progress"):
    """A request's computation began, or was put back behind a more urgent one."""

    started: bool


class Answer(Struct, frozen=True, tag="answer"):
    """How a request ended; every request gets exactly one.

    `malformed` with a coverage: the model did not understand what the caller wrote. Without one: the
    model's arithmetic or the worker is broken. `decision` stands there where a server names one without
    probabilities.
    """

    outcome: Outcome
    started: bool
    probabilities: Probabilities | None = None
    coverage: float | None = None
    prompt_tokens: int | None = None
    decision: Decision | None = None

    def advisory(self, version: str, *, latency_ms: float) -> Advisory:
        """It as a version's word: a decision stands in it only where the outcome is `ok` or `unsure`."""
        shares = self.probabilities if self.outcome in (Outcome.OK, Outcome.UNSURE) else None
        return Advisory(
            version=version,
            outcome=self.outcome,
            latency_ms=latency_ms,
            started=self.started,
            decision=shares.most_probable if shares else self.decision,
            probabilities=shares,
            confidence=shares.of(shares.most_probable) if shares else None,
            coverage=self.coverage,
            prompt_tokens=self.prompt_tokens,
        )


class Explained(Struct, frozen=True, tag="explained"):
    """The reasons found until the deadline; `complete` says whether that is all of them."""

    complete: bool
    effects: tuple[Effect, ...] = ()
    generated: str | None = None


ToWorker = Load | Prepare | Drop | Ask | Explain | Cancel | Misbehave
FromWorker = Loaded | Failed | Prepared | Progress | Answer | Explained

_encoder = msgspec.msgpack.Encoder()


def frame(request: int, message: Struct) -> bytes:
    """A message ready to be sent."""
    body = _encoder.encode(message)
    return HEADER.pack(len(body), request) + body
