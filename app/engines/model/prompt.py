"""How does a situation become the prompt that the model reads?

A template surrounds the situation, which is written one line a field, so that no value can forge
another line.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from app.domain.decision import Decision
from app.domain.situation import Situation, parse_situation
from app.engines.model.template import Piece, Shown, fill
from app.errors import InvalidSituation, PolicyError
from app.policy.files import read_text

REASON_CUE = "\nReason:"  # follows the decision where a version lets the model add its own words
DECISION_CUE = "\nDecision:"  # follows the reason where a version lets the model reason first
_LABEL_LENGTH = 40
# Labels that an extra member must not take: those written below, the wire names they stand for,
# and words with which a prompt frames its question or its answer.
_RESERVED = frozenset(
    {
        *("action", "role", "resource", "trust", "team_context", "recent_history", "details"),
        *("identity_metrics", "timestamp", "rules_say", "rules"),
        *("action_type", "actor_role", "actor_id", "t3_tensor"),
        *("decide", "decision", "reason", "answer", "system", "user", "assistant", "extra"),
    }
)
_METRICS_FIRST = ("level", "coherence", "trend")
# Without width or ink, yet printable by their Unicode category: joiners, fillers, variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What stands before the situation and after it. `sha256` is of the files that say so."""

    pieces: tuple[Piece, ...]
    suffix: str
    sha256: str

    @property
    def prefix(self) -> str:
        """The pieces as one text."""
        return "".join(piece.text for piece in self.pieces)


class _Example(Struct, frozen=True, forbid_unknown_fields=True):
    situation: dict[str, Any]
    decision: Decision
    reason: str = ""
    legacy: Decision | None = None


def load_prompt(path: Path, *, examples: Path | None = None, show_legacy: bool = False) -> Prompt:
    """Read a template of `policies/prompts/` and show it the examples of a JSON-lines file.

    It writes `{{ situation }}` exactly once. White space at its end is the editor's, not the
    prompt's: nothing may stand between `Decision:` and the label. An example's `legacy` is shown
    where the version shows the legacy engine's answer. Raises `PolicyError`.
    """
    source = read_text(path)
    digest = hashlib.sha256(source.encode())
    shown: list[Shown] = []
    if examples is not None:
        text = read_text(examples)
        digest.update(b"\0" + text.encode())
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        shown = [_show(examples, number, line, show_legacy=show_legacy) for number, line in lines]
    pieces, suffix = fill(source, path=str(path), examples=shown)
    return Prompt(pieces, suffix.rstrip(), digest.hexdigest())


def _show(path: Path, number: int, line: str, *, show_legacy: bool) -> Shown:
    try:
        example = msgspec.json.decode(line, type=_Example)
        situation = parse_situation(example.situation)
    except (msgspec.MsgspecError, InvalidSituation) as error:
        raise PolicyError(str(path), number, "", f"is no example: {error}") from error
    lines = write(situation, legacy=example.legacy if show_legacy else None)
    return Shown(situation_text(lines), example.decision, visible(example.reason).strip())


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the prompt. `field` is the caller's name for it, `label` what the model reads."""

    field: str
    label: str
    text: str

    def __str__(self) -> str:
        return f"{self.label}: {self.text}"


def write(situation: Situation, *, legacy: Decision | None = None) -> tuple[Line, ...]:
    """Write a situation as the prompt's lines, in their fixed order; absent and empty fields have none.

    The same situation gives the same lines whatever the order of its members. Total: any text is
    safe, lone surrogates and NULs included. `legacy` adds the rules line.
    """
    return tuple(
        Line(field, label, text)
        for field, label, value in _members(situation, legacy)
        if (text := visible(_inline(value)).strip())
    )


def situation_text(lines: Sequence[Line]) -> str:
    """The middle of the prompt, all of it the caller's."""
    return "\n".join(str(line) for line in lines)


def visible(text: str) -> str:
    """The text on one line: what breaks lines, reorders or hides is shown as an escape."""
    if text.isprintable() and not _INVISIBLE.search(text):
        return text
    return "".join(_visible_character(character) for character in text)


def _members(situation: Situation, legacy: Decision | None) -> Iterator[tuple[str, str, Any]]:
    yield "action_type", "action", situation.action_type
    yield "actor_role", "role", situation.actor_role
    yield "resource", "resource", situation.resource
    yield "t3_tensor", "trust", _percent(situation.trust.figures())
    for name in ("team_context", "recent_history", "details"):
        yield name, name, getattr(situation, name)
    yield "identity_metrics", "identity_metrics", _metrics_in_order(situation.identity_metrics)
    yield "timestamp", "timestamp", situation.timestamp
    yield from _extra(situation.extra or {})
    if legacy is not None:
        yield "rules_say", "rules say", legacy.value


def _extra(extra: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    taken: set[str] = set()
    for key in sorted(extra):
        label = _free_label(_label(key), taken)
        taken.add(label)
        yield label, label, extra[key]


def _label(key: str) -> str:
    """Any key as `[a-z][a-z0-9_]{0,39}`, and none of ours."""
    plain = re.sub(r"[^a-z0-9]+", "_", key.lower()).strip("_")
    if not plain or plain in _RESERVED or not plain[0].isalpha():
        plain = f"extra_{plain}".rstrip("_")
    return plain[:_LABEL_LENGTH].rstrip("_")


def _free_label(label: str, taken: set[str]) -> str:
    number, free = 1, label
    while free in taken or free in _RESERVED - {"extra"}:
        number += 1
        free = f"{label[: _LABEL_LENGTH - 6]}_{number}"
    return free


def _percent(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {round(100 * share)}" for name, share in figures.items())


def _metrics_in_order(metrics: Mapping[str, Any] | None) -> str | None:
    if metrics is None:
        return None
    first = [name for name in _METRICS_FIRST if name in metrics]
    rest = sorted(name for name in metrics if name not in _METRICS_FIRST)
    return _pairs({name: metrics[name] for name in (*first, *rest)})


def _inline(value: Any) -> str:
    """Any JSON value as plain words where it is flat, as compact JSON where it is not."""
    match value:
        case None:
            return ""
        case str():
            return value
        case Mapping():
            return _pairs({key: value[key] for key in sorted(value, key=str)})
        case list() | tuple():
            return "; ".join(_scalar(item) for item in value)
        case _:
            return _scalar(value)


def _pairs(members: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_scalar(value)}" for key, value in members.items())


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    except (ValueError, TypeError, RecursionError):
        return "(cannot be written as text)"


def _visible_character(character: str) -> str:
    if character.isprintable() and not _INVISIBLE.match(character):
        return character
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode("ascii")
