"""What surrounds a situation in the prompt, and where does the situation go?"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.engines.model.fields import Line
from app.errors import PolicyError

_PLACE = "{{ situation }}"
_OTHER_MARKUP = re.compile(r"\{\{|\{%|\{#")

REASON_CUE = "\nReason:"  # follows the decision where a version lets the model add its own words


@dataclass(frozen=True, slots=True)
class Prompt:
    """A template's two sides. Only these may hold control tokens; `sha256` is of the file's bytes."""

    prefix: str
    suffix: str
    sha256: str


def load_prompt(path: Path) -> Prompt:
    """Read a template of `policies/prompts/`.

    It has `{{ situation }}` exactly once and no other markup. White space at its end is the
    editor's, not the prompt's: nothing may stand between `Decision:` and the label.
    Raises `PolicyError`.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8")
    except OSError as error:
        raise PolicyError(str(path), None, "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PolicyError(str(path), None, "", "is not UTF-8") from error
    if text.count(_PLACE) != 1:
        raise PolicyError(str(path), None, "", f"must contain {_PLACE} exactly once")
    prefix, suffix = text.split(_PLACE)
    if _OTHER_MARKUP.search(prefix + suffix):
        raise PolicyError(str(path), None, "", f"may contain no markup but {_PLACE}")
    return Prompt(prefix, suffix.rstrip(), hashlib.sha256(raw).hexdigest())


def situation_text(lines: Sequence[Line]) -> str:
    """The middle of the prompt, all of it the caller's."""
    return "\n".join(str(line) for line in lines)


def render(prompt: Prompt, lines: Sequence[Line]) -> str:
    """The whole prompt as the model reads it, for people to check."""
    return prompt.prefix + situation_text(lines) + prompt.suffix
