"""How is a kind of remark put into words, and which words did it take?

`wording/train.txt` and `wording/test.txt` hold a section for every kind, one phrasing a line, and one for
every slot. They have no line in common.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Split = Literal["train", "test"]

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Remark:
    """One sentence and the phrasing it was made from, such as `train/freeze/3`."""

    text: str
    wording: str


@cache
def sections(split: Split) -> Mapping[str, tuple[str, ...]]:
    """The phrasings of every kind; fillers are under `slot person` and the like."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (Path(__file__).parent / "wording" / f"{split}.txt").read_text().splitlines():
        if line.startswith("["):
            lines = found.setdefault(line.strip("[]"), [])
        elif line:
            lines.append(line)
    return {kind: tuple(phrasings) for kind, phrasings in found.items()}


def remark(split: Split, kind: str, chance: random.Random) -> Remark:
    """A phrasing of the kind with its slots filled."""
    phrasings = sections(split)[kind]
    number = chance.randrange(len(phrasings))
    return Remark(_filled(split, phrasings[number], chance), f"{split}/{kind}/{number}")


def _filled(split: Split, phrasing: str, chance: random.Random) -> str:
    text = _SLOT.sub(lambda slot: chance.choice(sections(split)[f"slot {slot[1]}"]), phrasing)
    return text[0].upper() + text[1:]
