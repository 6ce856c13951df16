"""Which fields of a situation carried the model's answer, and how far?"""

import json
import math
from collections.abc import Mapping
from typing import Any

from app.domain.situation import parse_situation, to_document
from app.web.console.wording import words

# How much of the chosen answer's probability goes when a field is left out.
_NOTICEABLE = 0.02
_STRENGTHS = (
    (0.3, "carried the answer"),
    (0.1, "weighed much"),
    (_NOTICEABLE, "weighed a little"),
    (-_NOTICEABLE, "made no difference"),
    (-math.inf, "spoke against it"),
)


def fields_of(story: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The situation as its reader's fields, the best known first.

    A field has `name`, `texts` (one or several lines), and where it was left out to see what the model says then,
    `effect`, `strength` (that in words) and `decision_without`, null where it was not. `carried`: it is marked.
    """
    known, advisory = story["situation"], story["advisory"] or {}
    situation = {} if known is None else to_document(parse_situation(known))
    effects = {each["field"]: each for each in advisory.get("attributions") or ()}
    found = [
        {"name": name, "texts": _lines(value), **_effect(effects.get(name))}
        for name, value in situation.items()
    ]
    unseen = [each for name, each in effects.items() if name not in situation]
    return found + [{"name": each["field"], "texts": [], **_effect(each)} for each in unseen]


def _effect(attribution: Mapping[str, Any] | None) -> dict[str, Any]:
    effect = None if attribution is None else attribution["effect"]
    without = None if attribution is None else attribution["decision_without"]
    strength = None if effect is None else next(name for least, name in _STRENGTHS if effect >= least)
    carried = effect is not None and effect >= _NOTICEABLE
    return {"effect": effect, "decision_without": without, "strength": strength, "carried": carried}


def _lines(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case Mapping():
            return [f"{words(name)}: {' '.join(_lines(each))}" for name, each in value.items()]
        case list() | tuple():
            return [" ".join(_lines(each)) for each in value]
        case _:
            return [json.dumps(value)]
