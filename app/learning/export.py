"""How do verdicts become training data that another tool can read?"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from app.domain.decision import Decision
from app.engines.model.prompt import Prompt, situation_text, write
from app.learning.corrections import Example
from app.learning.redaction import Redactor

_SITUATION, _LABEL = "\x00situation\x00", "\x00label\x00"
# How chat templates mark who speaks, and where that ends.
_TURN = re.compile(
    r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>\s*|\Z)|<\|(system|user|assistant)\|>(.*?)(?:<\|end\|>\s*|\Z)",
    re.DOTALL,
)

_MARK = re.compile("\x00\\d+\x00")

Message = dict[str, str]


def chat(
    examples: Iterable[Example], prompt: Prompt, redactor: Redactor, *, show_legacy: bool, texts: bool
) -> Iterator[dict[str, Any]]:
    """One `{messages, actor, legacy}` an example, the messages as the version's prompt renders them.

    Actor ids are pseudonyms wherever they stand. Without `texts`, what people wrote is left out.
    """
    turns = _turns(prompt)
    for example in examples:
        situation = redactor.situation(example.situation, texts=texts)
        lines = write(situation, legacy=example.legacy if show_legacy else None)
        yield {
            "messages": _filled(turns, situation_text(lines), example.decision),
            "actor": situation.actor_id,
            "legacy": example.legacy,
        }


def _turns(prompt: Prompt) -> list[tuple[str, str]]:
    """Who says what, with marks where the situation and the label belong.

    Only the template's own text says who speaks: what it quotes is put back afterwards.
    """
    quoted = {f"\x00{place}\x00": piece.text for place, piece in enumerate(prompt.pieces) if not piece.ours}
    prefix = "".join(
        piece.text if piece.ours else f"\x00{place}\x00" for place, piece in enumerate(prompt.pieces)
    )
    whole = f"{prefix}{_SITUATION}{prompt.suffix} {_LABEL}"
    found = [(one or other, first or second) for one, first, other, second in _TURN.findall(whole)]
    turns = found or [("user", whole.removesuffix(f" {_LABEL}")), ("assistant", _LABEL)]
    return [(role, _MARK.sub(lambda mark: quoted[mark[0]], text)) for role, text in turns]


def _filled(turns: list[tuple[str, str]], situation: str, decision: Decision) -> list[Message]:
    """The label first: the situation is the caller's and might spell its mark."""
    return [
        {"role": role, "content": text.replace(_LABEL, decision).replace(_SITUATION, situation)}
        for role, text in turns
    ]
