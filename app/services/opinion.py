"""What does the model think, where nobody is bound by it?"""

from typing import Any

from app.domain.situation import Situation
from app.engines.model.wire import Priority
from app.services.documents import fresh_advisory
from app.services.plane import Plane
from app.services.ports import Model


class Opinions:
    def __init__(self, plane: Plane, model: Model) -> None:
        self._plane = plane
        self._model = model

    async def of(self, situation: Situation) -> dict[str, Any]:
        """The advisory alone, with its reasoning; the most probable label even where the model is unsure."""
        policy, _ = self._plane.view.place(situation)
        legacy = None
        if self._model.shows_legacy:
            legacy = (await self._plane.view.policy.legacy.decide(situation)).decision
        advisory = await self._model.advise(
            situation, priority=Priority.ADVISORY, deadline_s=policy.deadline_ms / 1000, legacy=legacy
        )
        reasoning = None
        if advisory.probabilities is not None:
            reasoning = await self._model.explain(situation, advisory, legacy=legacy)
        return {
            **fresh_advisory(advisory, reasoning),
            "model": self._model.status.model,
            "rollout": policy.name,
            "independent": not self._model.shows_legacy,
        }
