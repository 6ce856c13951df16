"""What does a caller ask about, and is it well formed?"""

import json
import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import InvalidSituation

MAX_SITUATION_BYTES = 64 * 1024

# Both namings of the trust tensor, in one order; the first is the one we keep.
_TRUST_FIELDS = ("competence", "reliability", "integrity")
_NEWER_TRUST_FIELDS = ("talent", "training", "temperament")
_EITHER_NAMING = f"{', '.join(_TRUST_FIELDS)} or {', '.join(_NEWER_TRUST_FIELDS)}"
_TEXT_FIELDS = ("resource", "team_context", "timestamp")
_OPTIONAL_FIELDS = (*_TEXT_FIELDS, "recent_history", "identity_metrics", "details")
_PARTS = frozenset(_TRUST_FIELDS)
_KNOWN = frozenset({"action_type", "actor_role", "actor_id", "t3_tensor", *_OPTIONAL_FIELDS})
_NAME_LENGTH = 256
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
_MAX_LEVELS = 32


@dataclass(frozen=True, slots=True)
class Trust:
    """The trust tensor, each part 0..1."""

    competence: float
    reliability: float
    integrity: float

    @property
    def mean(self) -> float:
        # Rounded so that three times 0.7 is 0.7 and not just below it.
        return round((self.competence + self.reliability + self.integrity) / 3, 9)

    @property
    def lowest(self) -> float:
        return min(self.competence, self.reliability, self.integrity)

    def figures(self) -> dict[str, float]:
        """Its parts, and what sums them up."""
        return {
            "competence": self.competence,
            "reliability": self.reliability,
            "integrity": self.integrity,
            "mean": self.mean,
            "lowest": self.lowest,
        }


@dataclass(frozen=True, slots=True)
class Situation:
    """One question. `extra` keeps what the caller sent beyond the known fields, in their order."""

    action_type: str
    actor_role: str
    actor_id: str
    trust: Trust
    resource: str | None = None
    team_context: str | None = None
    timestamp: str | None = None
    recent_history: str | tuple[str, ...] | None = None
    identity_metrics: Mapping[str, Any] | None = None
    details: Any = None
    extra: Mapping[str, Any] | None = None


def parse_situation(raw: object) -> Situation:
    """Check what came over the wire and give it the one internal form.

    Raises `InvalidSituation` naming every field that is wrong, not only the first. Members that
    are null count as absent. Unknown members are kept in `extra`.
    """
    if not isinstance(raw, dict):
        raise InvalidSituation([("", "a situation is a JSON object")])
    errors = [
        (field, "is nested too deeply")
        for field, value in raw.items()
        if isinstance(value, dict | list) and not _is_shallow(value)
    ]
    action_type = _name(raw, "action_type", errors)
    actor_role = _name(raw, "actor_role", errors)
    actor_id = _name(raw, "actor_id", errors)
    trust = _trust(raw.get("t3_tensor"), errors)
    resource, team_context, timestamp = (_text(raw.get(field), field, errors) for field in _TEXT_FIELDS)
    history = _history(raw.get("recent_history"), errors)
    metrics = _metrics(raw.get("identity_metrics"), errors)
    if errors:
        raise InvalidSituation(errors)
    extra = None
    if not raw.keys() <= _KNOWN:
        extra = {key: value for key, value in raw.items() if key not in _KNOWN and value is not None}
    return Situation(
        action_type=action_type,
        actor_role=actor_role,
        actor_id=actor_id,
        trust=trust,
        resource=resource,
        team_context=team_context,
        timestamp=timestamp,
        recent_history=history,
        identity_metrics=metrics,
        details=raw.get("details"),
        extra=extra or None,
    )


def to_document(situation: Situation) -> dict[str, Any]:
    """The JSON form of a situation: `parse_situation(to_document(s)) == s`; absent fields left out."""
    document: dict[str, Any] = {
        "action_type": situation.action_type,
        "actor_role": situation.actor_role,
        "actor_id": situation.actor_id,
        "t3_tensor": {field: getattr(situation.trust, field) for field in _TRUST_FIELDS},
    }
    for field in _OPTIONAL_FIELDS:
        value = getattr(situation, field)
        if value is not None:
            document[field] = value
    document.update(situation.extra or {})
    return document


def canonical(situation: Situation) -> str:
    """The same JSON for the same situation, whatever the order or naming it came in."""
    return _encode(to_document(situation))


def facts(situation: Situation) -> dict[str, Any]:
    """What a condition may name. Absent fields are absent, so a condition on one errs.

    `trust` has `competence`, `reliability`, `integrity`, `mean` and `lowest`, each 0..1; unknown
    members that a caller sent are under `extra`.
    """
    known = {
        "action_type": situation.action_type,
        "actor_role": situation.actor_role,
        "actor_id": situation.actor_id,
        "trust": situation.trust.figures(),
        "extra": dict(situation.extra or {}),
    }
    for field in _OPTIONAL_FIELDS:
        value = getattr(situation, field)
        if value is not None:
            known[field] = value
    return known


def _is_shallow(value: object, levels: int = _MAX_LEVELS) -> bool:
    """Whether a value's nesting is bounded: every reader of it recurses."""
    if isinstance(value, dict):
        inner: Iterable[object] = value.values()
    elif isinstance(value, list):
        inner = value
    else:
        return True
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in inner)


def _name(raw: dict[str, Any], field: str, errors: list[tuple[str, str]]) -> str:
    value = raw.get(field)
    if value is None:
        errors.append((field, "is required"))
    elif not isinstance(value, str) or not value.strip():
        errors.append((field, "must be a non-empty text"))
    elif len(value) > _NAME_LENGTH:
        errors.append((field, f"must be at most {_NAME_LENGTH} characters"))
    elif not value.isprintable() and any(unicodedata.category(character) == "Cc" for character in value):
        errors.append((field, "must not hold control characters"))
    else:
        return value
    return ""


def _text(value: object, field: str, errors: list[tuple[str, str]]) -> str | None:
    if value is None or isinstance(value, str):
        return value
    errors.append((field, "must be a text"))
    return None


def _trust(value: object, errors: list[tuple[str, str]]) -> Trust:
    nothing = Trust(0.0, 0.0, 0.0)
    if not isinstance(value, dict):
        problem = "is required" if value is None else "must be an object"
        errors.append(("t3_tensor", f"{problem}: {_EITHER_NAMING}, each 0..1"))
        return nothing
    if value.keys() == _PARTS:  # as nearly everybody writes it
        return Trust(*[_share(value[name], f"t3_tensor.{name}", errors) for name in _TRUST_FIELDS])
    unknown = [key for key in value if key not in _TRUST_FIELDS and key not in _NEWER_TRUST_FIELDS]
    errors.extend((f"t3_tensor.{key}", "is not a part of the trust tensor") for key in unknown)
    newer = any(name in value for name in _NEWER_TRUST_FIELDS)
    if newer and any(name in value for name in _TRUST_FIELDS):
        errors.append(("t3_tensor", f"mixes two namings: use {_EITHER_NAMING}"))
        return nothing
    names = _NEWER_TRUST_FIELDS if newer else _TRUST_FIELDS
    parts = [_share(value.get(name), f"t3_tensor.{name}", errors) for name in names]
    return Trust(*parts)


def _share(value: object, field: str, errors: list[tuple[str, str]]) -> float:
    if value is None:
        errors.append((field, "is required"))
    elif isinstance(value, bool) or not isinstance(value, int | float):
        errors.append((field, "must be a number from 0 to 1"))
    elif not math.isfinite(value) or not 0 <= value <= 1:
        errors.append((field, f"must be from 0 to 1, not {value}"))
    else:
        return float(value)
    return 0.0


def _history(value: object, errors: list[tuple[str, str]]) -> str | tuple[str, ...] | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    errors.append(("recent_history", "must be a text or a list of texts"))
    return None


def _metrics(value: object, errors: list[tuple[str, str]]) -> Mapping[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        errors.append(("identity_metrics", "must be an object with level, coherence, trend"))
        return None
    return value
