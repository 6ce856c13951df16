"""How is the effect of each field said in one sentence?"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.advisory import Advisory, Attribution, Outcome, Reasoning
from app.domain.decision import Decision
from app.engines.model.prompt import Line

_NOTICEABLE = 0.02
_EXCERPT = 120


@dataclass(frozen=True, slots=True)
class Effect:
    """What happens without one field: how far the chosen label's probability falls, and what wins then.

    `probability_without` is None where a server tells no shares: then `effect` is 1 or 0.
    """

    field: str
    effect: float
    decision_without: Decision
    probability_without: float | None


def sentence(advisory: Advisory, effects: Sequence[Effect], *, lines: Sequence[Line]) -> str:
    """One sentence, such as "deny, mainly because of details, “...”: without it allow at 0.71"."""
    most = max(effects, key=lambda effect: effect.effect, default=None)
    if most is None:
        return _opening(advisory)
    if most.effect < _NOTICEABLE:
        return f"{_opening(advisory)}; no single field carries it"
    text = next((line.text for line in lines if line.field == most.field), "")
    excerpt = text if len(text) <= _EXCERPT else f"{text[: _EXCERPT - 1]}…"
    without = str(most.decision_without)
    if most.probability_without is not None:
        without += f" at {most.probability_without:.2f}"
    if most.decision_without is advisory.decision:
        without = f"still {without}, instead of {advisory.confidence:.2f}"
    return f"{_stance(advisory)}, mainly because of {most.field}, “{excerpt}”: without it {without}"


def worded(
    advisory: Advisory, effects: Sequence[Effect], *, generated: str | None, lines: Sequence[Line]
) -> Reasoning:
    """The reasons of an advisory that has a decision: attributions in words, the model's own beside them."""
    if not effects and not generated:
        return unexplained(advisory, "there was no time to find out")
    text = sentence(advisory, effects, lines=lines)
    if advisory.confidence is None:  # a server that tells no shares: no effect has a size
        effects = ()
    if not effects and generated:
        text = f"{text}; in the model's own words: {generated}"
    attributions = tuple(Attribution(found.field, found.effect, found.decision_without) for found in effects)
    return Reasoning(text, attributions or None, generated or None)


def unexplained(advisory: Advisory, why: str) -> Reasoning:
    """What can be said where the reasons are not known."""
    if advisory.decision is None:
        return Reasoning(f"no opinion ({advisory.outcome}): {why}")
    return Reasoning(f"{_opening(advisory)}; which fields made it so is not known: {why}")


def _opening(advisory: Advisory) -> str:
    if advisory.confidence is None:  # a server that tells no shares
        return _stance(advisory)
    return f"{_stance(advisory)} at {advisory.confidence:.2f}"


def _stance(advisory: Advisory) -> str:
    return (
        str(advisory.decision)
        if advisory.outcome is Outcome.OK
        else f"unsure, leaning to {advisory.decision}"
    )
