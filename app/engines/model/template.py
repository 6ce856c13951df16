"""How is a prompt's template filled in, and which of the text did somebody else write?"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment

from app.errors import PolicyError

# NUL stands in no template that is accepted and in no text that is shown: it cannot be forged.
_PLACE = "\0situation\0"
_QUOTED = re.compile("\0<(.*?)>\0", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a prompt. Only what is `ours`, the template's own text, may hold control tokens."""

    text: str
    ours: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """One example as a template sees it."""

    situation: str
    decision: str
    reason: str


def fill(source: str, *, path: str, examples: Sequence[Shown]) -> tuple[tuple[Piece, ...], str]:
    """What stands before the situation, in pieces, and what stands after it.

    The template is Jinja's, sandboxed; it knows `situation`, which it writes exactly once, and
    `examples`, each with `situation`, `decision` and `reason`. Raises `PolicyError`.
    """
    if "\0" in source:
        raise PolicyError(path, None, "", "may hold no NUL character")
    parts = _render(source, path, examples).split(_PLACE)
    if len(parts) != 2:
        raise PolicyError(path, None, "", "must contain {{ situation }} exactly once")
    prefix, suffix = _pieces(parts[0]), parts[1]
    if any("\0" in text for text in (*(piece.text for piece in prefix), suffix)):
        raise PolicyError(path, None, "", "must write each example as it is, before the situation")
    return prefix, suffix


def _render(source: str, path: str, examples: Sequence[Shown]) -> str:
    # The result is read by a model and not by a browser: nothing in it is escaped.
    environment = SandboxedEnvironment(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    quoted = [Shown(_quote(one.situation), one.decision, _quote(one.reason)) for one in examples]
    try:
        return environment.from_string(source).render(situation=_PLACE, examples=quoted)
    except TemplateSyntaxError as error:
        raise PolicyError(path, error.lineno, "", f"is no template: {error.message}") from error
    except (TemplateError, ArithmeticError, TypeError, ValueError) as error:
        raise PolicyError(path, None, "", f"cannot be filled in: {error}") from error


def _quote(text: str) -> str:
    return f"\0<{text}>\0" if text else ""


def _pieces(text: str) -> tuple[Piece, ...]:
    """Every second part is an example's. Blanks before it belong to its first word, as in any text."""
    parts = _QUOTED.split(text)
    pieces = []
    for index, part in enumerate(parts):
        if index % 2:
            before = parts[index - 1]
            pieces.append(Piece(before[len(before.rstrip(" ")) :] + part, ours=False))
        else:
            last = index + 1 == len(parts)
            pieces.append(Piece(part if last else part.rstrip(" "), ours=True))
    return tuple(piece for piece in pieces if piece.text)
