"""Which examples must stay together, so that what is held out is not known already?

Examples of one actor stay together, and so do those that share a phrase, be it with other numbers, ids
or names in it. A phrase that many share is boilerplate and holds nothing together: else all would be one
group.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from app.domain.situation import Situation
from app.errors import Refused

FOLDS = 5
_GROUPS_AT_LEAST = 2 * FOLDS
_LARGEST_SHARE = 0.5
BOILERPLATE = 0.01  # of the examples
_BOILERPLATE_AT_LEAST = 3
_NEAR = 0.5  # Jaccard index of two phrases' words
_WIDTH = 2048  # words are told apart by their hash, up to so many
_CHUNK = 512

_BREAKS = re.compile(r"[.!?;\n]+(?:\s|$)")
_WORDS = re.compile(r"[^\W\d_]+")


class Unions:
    """Disjoint sets of the numbers below `size` (Galler and Fischer 1964); a set is named by its lowest."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, item: int) -> int:
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low

    def join_all(self, items: Iterable[int]) -> None:
        first, *rest = items
        for item in rest:
            self.join(first, item)


def groups(
    situations: Sequence[Situation], actors: Sequence[str | None], *, boilerplate: float = BOILERPLATE
) -> list[int]:
    """The group of each example. An actor of None, as in generated data, holds nothing together.

    A phrase in more than the share `boilerplate` (0..1) of the situations does not either; whoever says
    all the same stays together all the same.
    """
    unions = Unions(len(situations))
    limit = max(_BOILERPLATE_AT_LEAST, boilerplate * len(situations))
    said = templates(situations)
    for members in _by_key(said):
        if len(members) <= limit:
            unions.join_all(members)
    for members in _by_key([[tuple(each)] if each else [] for each in said]):
        unions.join_all(members)
    for members in _by_key([[] if actor is None else [actor] for actor in actors]):
        unions.join_all(members)
    return [unions.find(index) for index in range(len(situations))]


def folds(group_of: Sequence[int], *, count: int = FOLDS) -> NDArray[np.int64]:
    """The fold, 0..count-1, of each example: whole groups, as even as they allow, the largest first.

    Raises `Refused` where there are too few groups, or one is most of everything.
    """
    sizes = Counter(group_of)
    largest = max(sizes.values(), default=0)
    if len(sizes) < _GROUPS_AT_LEAST or largest > _LARGEST_SHARE * len(group_of):
        raise Refused(
            f"{len(group_of)} examples make {len(sizes)} groups by wording and actor, the largest of {largest}: "
            f"at least {_GROUPS_AT_LEAST} are needed, none above half; collect verdicts on more actors"
        )
    loads, fold_of = [0] * count, {}
    for group, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        fold_of[group] = loads.index(min(loads))
        loads[fold_of[group]] += size
    return np.array([fold_of[group] for group in group_of])


def templates(situations: Sequence[Situation]) -> list[list[int]]:
    """The phrases of each situation's free text, near-identical ones under one number."""
    said = [[words for text in free_texts(each) for words in _phrases(text)] for each in situations]
    numbers = {words: number for number, words in enumerate(sorted({each for one in said for each in one}))}
    unions = Unions(len(numbers))
    for one, other in _near_pairs(list(numbers)):
        unions.join(one, other)
    return [sorted({unions.find(numbers[words]) for words in one}) for one in said]


def free_texts(situation: Situation) -> list[str]:
    """Every text in the fields that a person fills in, extra members included."""
    fields = (situation.team_context, situation.recent_history, situation.details, situation.extra)
    return [text for field in fields for text in _texts(field)]


def _texts(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for each in value.values() for text in _texts(each)]
        case list() | tuple():
            return [text for each in value for text in _texts(each)]
        case _:
            return []


def _phrases(text: str) -> list[tuple[str, ...]]:
    """The words of each sentence, without what holds a digit: numbers and ids."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    kept = (re.sub(r"\S*\d\S*", " ", sentence) for sentence in _BREAKS.split(plain))
    return [words for sentence in kept if (words := tuple(_WORDS.findall(sentence)))]


def _near_pairs(phrases: Sequence[tuple[str, ...]]) -> Iterable[tuple[int, int]]:
    """Pairs of places whose phrases have nearly the same words."""
    bags = np.zeros((len(phrases), _WIDTH), np.float32)
    for place, words in enumerate(phrases):
        bags[place, [crc32(word.encode()) % _WIDTH for word in words]] = 1
    sizes = bags.sum(axis=1)
    for start in range(0, len(phrases), _CHUNK):
        part = slice(start, start + _CHUNK)
        common = bags[part] @ bags.T
        near = common >= _NEAR * (sizes[part, None] + sizes[None, :] - common)
        for one, other in zip(*np.nonzero(near), strict=True):
            if other < start + one:
                yield int(start + one), int(other)


def _by_key(keys: Sequence[Sequence[Any]]) -> Iterable[list[int]]:
    """For each key, where it occurs."""
    places: dict[Any, list[int]] = {}
    for place, held in enumerate(keys):
        for key in held:
            places.setdefault(key, []).append(place)
    return places.values()
