"""What does the model think, where nobody is bound by it?"""

from typing import Any

from app.domain.situation import Situation
from app.engines.model.wire import Priority
from app.services.documents import fresh_advisory
from app.services.plane import Plane
from app.services.ports import Models


class Opinions:
    def __init__(self, plane: Plane, models: Models) -> None:
        self._plane = plane
        self._models = models

    async def of(self, situation: Situation) -> dict[str, Any]:
        """The advisory alone, with its reasoning; the most probable label even where the model is unsure."""
        policy, state = self._plane.view.place(situation)
        model = self._models.of(state.version)
        legacy = None
        if model.shows_legacy:
            legacy = (await self._plane.view.policy.legacy.decide(situation)).decision
        advisory = await model.advise(
            situation,
            priority=Priority.ADVISORY,
            deadline_s=policy.deadline_ms / 1000,
            legacy=legacy,
            scope="opinions" if policy.cache else None,
        )
        reasoning = None
        if advisory.decision is not None:
            reasoning = await model.explain(situation, advisory, legacy=legacy)
        return {
            **fresh_advisory(advisory, reasoning),
            "model": model.status.model,
            "rollout": policy.name,
            "independent": not model.shows_legacy,
        }
