"""What does the server say, in Python's terms?"""

from typing import Any, Literal

import msgspec

Document = dict[str, Any]

Label = Literal["allow", "require_attestation", "deny"]
Source = Literal["server", "client_fallback"]


class Decision(msgspec.Struct, frozen=True):
    """An answer to a situation. `source` tells a server's answer from the deny that stands for none.

    `error` says what failed where `source` is `client_fallback`; `raw` is the server's whole answer.
    """

    decision: Label
    source: Source
    id: str | None = None
    phase: str | None = None
    answered_by: str | None = None
    final: bool = True
    error: str | None = None
    raw: Document = {}

    @property
    def allowed(self) -> bool:
        """Only an allow is one: an attestation that is still open is not."""
        return self.decision == "allow"


class ClientError(Exception):
    """A call that failed, with the facts of the server's problem document.

    `status` is None where no answer came. `type` is the problem's stable name, such as
    `gate-not-met`, and `problem` the whole document.
    """

    def __init__(self, message: str, *, status: int | None = None, problem: Document | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem: Document = problem or {}
        self.type = str(self.problem.get("type", "")).rpartition("/")[2]


class _Answer(msgspec.Struct):
    decision: Label
    id: str
    phase: str
    answered_by: str
    final: bool


def denied(error: str) -> Decision:
    """The answer where there is none (law 3)."""
    return Decision("deny", "client_fallback", error=error)


def decision_from(document: object) -> Decision:
    """Read a decision document; one that is not a decision, or is a problem, denies."""
    if isinstance(document, dict) and "decision" not in document and "title" in document:
        return denied(_sentence(document))
    try:
        answer = msgspec.convert(document, _Answer)
    except msgspec.ValidationError as error:
        return denied(f"the answer is not a decision: {error}")
    assert isinstance(document, dict)
    return Decision(
        answer.decision, "server", answer.id, answer.phase, answer.answered_by, answer.final, None, document
    )


def problem_error(status: int, body: bytes) -> ClientError:
    """What an answer outside 2xx means, problem document or not."""
    try:
        problem = msgspec.json.decode(body, type=Document)
    except msgspec.MsgspecError:
        return ClientError(f"the server answered {status}", status=status)
    return ClientError(_sentence(problem) or f"the server answered {status}", status=status, problem=problem)


def _sentence(problem: Document) -> str:
    return str(problem.get("detail") or problem.get("title") or "")
