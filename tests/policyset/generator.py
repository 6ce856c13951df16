"""How does a seed become labelled situations?"""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.decision import Decision, LegacyAnswer
from app.domain.situation import parse_situation
from app.engines.legacy.port import DEFAULT_RULE
from app.engines.legacy.rules import RulesEngine
from tests.policyset.fields import asked, metrics, timestamp
from tests.policyset.truth import CHANGED, LENDS, RELEASES, SIGNALS, UNCHANGED, Plot, true_decision
from tests.policyset.wording import Remark, Split, remark

POLICIES = Path(__file__).parents[2] / "policies"
_NOISE = {"team_context": 0.6, "recent_history": 0.65, "details": 0.6}
_DAY, _NIGHT = (8, 18), (0, 5)
_NIGHTLY = ("hours", "rostered")
_LACKING = ("administration-is-closed", DEFAULT_RULE)  # a role that may not, whatever its trust


@dataclass(frozen=True, slots=True)
class Labelled:
    """One example. `wording` names every phrasing in it; `kind` is the remark that the truth may turn on."""

    id: str
    situation: dict[str, Any]
    decision: Decision
    legacy: Decision
    wording: tuple[str, ...]
    kind: str | None
    why: str


class Rules:
    """The shipped legacy policy, asked one situation at a time."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._engine = RulesEngine((POLICIES / "legacy.yaml").read_text())
        self._runner = runner

    def answer(self, situation: dict[str, Any]) -> LegacyAnswer:
        return self._runner.run(self._engine.decide(parse_situation(situation)))


def generate(split: Split, *, n: int, seed: int, changed: float = 0.156) -> Iterator[Labelled]:
    """`n` examples, the same for the same arguments.

    `changed` is the share, 0..1, on which free text overrules the rules; the default is the natural mix.
    """
    chance = random.Random(f"{split} {seed}")
    with asyncio.Runner() as runner:
        rules = Rules(runner)
        for number in range(n):
            plots = CHANGED if chance.random() < changed else UNCHANGED
            plot = chance.choices(plots, [each.share for each in plots])[0]
            kind = chance.choice(plot.kinds)
            situation, answer = _fitting(split, plot, kind, rules, chance)
            yield _told(f"{split}-{seed}-{number}", split, situation, answer, kind, chance)


def _fitting(
    split: Split, plot: Plot, kind: str | None, rules: Rules, chance: random.Random
) -> tuple[dict[str, Any], LegacyAnswer]:
    """Structured fields on which the rules answer as the plot wants."""
    while True:
        situation = asked(split, chance)
        if kind is not None and not SIGNALS[kind].concerns(situation["action_type"]):
            continue
        answer = rules.answer(situation)
        if answer.decision is plot.legacy and (kind is None or _is_sensible(kind, situation, answer)):
            return situation, answer


def _is_sensible(kind: str, situation: dict[str, Any], answer: LegacyAnswer) -> bool:
    """Secrets need a person anew each time, and a right is lent only to somebody who is trusted."""
    if kind in RELEASES:
        return answer.rule != "secrets-need-a-person"
    if kind in LENDS:
        trust = situation["t3_tensor"].values()
        return answer.rule in _LACKING and sum(trust) / 3 >= 0.7 and min(trust) >= 0.5
    return True


def _told(
    name: str,
    split: Split,
    situation: dict[str, Any],
    answer: LegacyAnswer,
    kind: str | None,
    chance: random.Random,
) -> Labelled:
    """Add what is written about it."""
    remarks = {
        field: remark(split, field, chance) for field, share in _NOISE.items() if chance.random() < share
    }
    said: dict[str, list[Remark]] = {field: [noise] for field, noise in remarks.items()}
    if kind is not None:
        field = chance.choice(SIGNALS[kind].fields)
        kept = said.get(field, []) if chance.random() < 0.5 else []
        said[field] = [*kept, remark(split, kind, chance)]
        chance.shuffle(said[field])
    for field, spoken in said.items():
        texts = [each.text for each in spoken]
        situation[field] = texts if field == "recent_history" and len(texts) > 1 else " ".join(texts)
    if chance.random() < 0.45 or (kind == "drift" and chance.random() < 0.5):
        situation["identity_metrics"] = metrics(chance, drifting=kind == "drift")
    if chance.random() < 0.5 or kind in _NIGHTLY:
        situation["timestamp"] = timestamp(split, _NIGHT if kind in _NIGHTLY else _DAY, chance)
    return Labelled(
        id=name,
        situation=situation,
        decision=true_decision(answer.decision, kind, situation["action_type"]),
        legacy=answer.decision,
        wording=tuple(each.wording for spoken in said.values() for each in spoken),
        kind=kind,
        why=f"the rules say {answer.decision} ({answer.rule}); {kind or 'nothing'} is said",
    )
