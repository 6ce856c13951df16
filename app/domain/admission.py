"""Is an observation evidence, or have its situation and its actor been heard enough?

A situation is evidence once in a window of time, and of a window's evidence no actor brings more than a
share: whoever asks the same again and again, or asks very much, cannot decide what a rollout's evidence says
(EVIDENCE 7). What is admitted is chosen by arrival, before anybody knows the answer: a choice by outcome would
bias every rate.
"""

from dataclasses import dataclass
from enum import StrEnum

ALWAYS = 3  # observations of one actor that are admitted however little there is in the window


class Claim(StrEnum):
    """Whether an observation may be evidence."""

    ADMITTED = "admitted"
    REPEATED = "repeated"  # its situation has been evidence in this window
    CAPPED = "capped"  # its actor, or its API key, has had its share of this window
    UNCLAIMED = "unclaimed"  # nobody asked, or nobody could say: the database is away


@dataclass(frozen=True, slots=True)
class Heard:
    """What was admitted in the window so far: in all, of this actor, of this API key, and of how many keys."""

    in_all: int = 0
    of_actor: int = 0
    of_key: int = 0
    keys: int = 0


def is_within_caps(heard: Heard, share: float) -> bool:
    """Whether one more observation leaves its actor within max(3, `share` of the window), 0 < share <= 1.

    The same holds for its API key, since who holds one can invent actors; but only where 1 / `share` keys
    are active: fewer cannot all keep below the share, and one gateway that asks for everybody is no abuse.
    """
    most = max(ALWAYS, share * (heard.in_all + 1))
    if heard.of_actor + 1 > most:
        return False
    return heard.keys * share < 1 or heard.of_key + 1 <= most
