"""What can go wrong, as one tree.

PhasegateError
├── InvalidSituation       what a caller sent is not a situation      (fields)
├── InvalidInput           another request is wrong in form           (fields)
├── PolicyError            a file under policies/ is wrong            (path, line, key)
├── SettingsError          an environment variable is wrong           (name)
├── NotFound               no such rollout, decision, review, key     (kind, name)
├── Forbidden              the right person, the wrong role or act    (code)
│   └── CeilingReached     the rollout may never go that high         (rollout, ceiling)
├── Conflict               someone else was there first               (code)
│   ├── RevisionConflict   the rollout moved since it was read        (expected, actual)
│   └── GateNotMet         the evidence does not carry the promotion  (gate)
├── Refused                learning ended without a new version
├── StoreUnavailable       the database cannot be reached
└── NotRecorded            neither database nor journal took the record: no decision
"""

from collections.abc import Collection
from typing import Any


class PhasegateError(Exception):
    """Root of all of ours."""


class _FieldErrors(PhasegateError):
    def __init__(self, fields: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {message}" if field else message for field, message in fields))
        self.fields = fields


class InvalidSituation(_FieldErrors):
    """`fields` holds (dotted field, message) pairs, all that are wrong."""


class InvalidInput(_FieldErrors):
    """`fields` holds (dotted field, message) pairs, all that are wrong."""


class PolicyError(PhasegateError):
    """A policy file is wrong; the message reads `file:line: key: what`."""

    def __init__(self, path: str, line: int | None, key: str, message: str) -> None:
        place = path if line is None else f"{path}:{line}"
        super().__init__(f"{place}: {key}: {message}" if key else f"{place}: {message}")
        self.path, self.line, self.key, self.what = path, line, key, message


class SettingsError(PhasegateError):
    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


class NotFound(PhasegateError):
    """`known` are those that there are, where a person may choose among them."""

    def __init__(self, kind: str, name: str, *, known: Collection[str] = ()) -> None:
        there_are = f"; there are {', '.join(sorted(known))}" if known else ""
        super().__init__(f"no {kind} {name!r}{there_are}")
        self.kind, self.name = kind, name


class Forbidden(PhasegateError):
    """`code` is the problem's stable type, such as `own-request`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class CeilingReached(Forbidden):
    def __init__(self, rollout: str, ceiling: str) -> None:
        super().__init__("ceiling", f"{rollout} never goes past {ceiling}")
        self.rollout, self.ceiling = rollout, ceiling


class Conflict(PhasegateError):
    """`code` is the problem's stable type."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RevisionConflict(Conflict):
    def __init__(self, expected: int, actual: int) -> None:
        super().__init__("revision-conflict", f"expected revision {expected}, found {actual}")
        self.expected, self.actual = expected, actual


class GateNotMet(Conflict):
    """`gate` is the whole assessment, in its wire form."""

    def __init__(self, gate: dict[str, Any]) -> None:
        super().__init__("gate-not-met", str(gate["sentence"]))
        self.gate = gate


class Refused(PhasegateError):
    """No version comes of this; the message says what is missing or what was no better."""


class StoreUnavailable(PhasegateError):
    """The database cannot be reached."""


class NotRecorded(PhasegateError):
    """Neither the database nor the journal took the record, so there is no decision (law 2)."""
