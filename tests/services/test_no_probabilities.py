"""What does the plane do with a model whose server tells a decision and nothing of how sure it is?"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path

from app.domain.advisory import Advisory
from app.domain.decision import Decision
from app.domain.phase import Phase
from app.domain.situation import Situation
from app.engines.model.wire import Priority
from app.store.database import Database
from tests.services.plane import ROLLOUTS, FakeModel, opened
from tests.services.test_phases import answer


@dataclass
class Terse(FakeModel):
    """Says what it decides, never with which probability."""

    async def advise(
        self,
        situation: Situation,
        *,
        priority: Priority,
        deadline_s: float,
        legacy: Decision | None = None,
        scope: Hashable = None,
    ) -> Advisory:
        said = await super().advise(
            situation, priority=priority, deadline_s=deadline_s, legacy=legacy, scope=scope
        )
        return replace(said, probabilities=None, confidence=None, coverage=None)


async def test_its_decision_counts_is_recorded_and_can_be_explained(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path, model=Terse()) as stage:
        await stage.enter("read", Phase.ENFORCED)
        document = await stage.decide(legacy="allow", model="deny")
        assert answer(document) == ("deny", "model", None)
        story = await stage.story(document["id"], wait_s=5)
        assert story["advisory"]["decision"] == "deny"
        assert (story["advisory"]["probabilities"], story["advisory"]["confidence"]) == (None, None)
        assert "mainly because of details" in story["advisory"]["reasoning"]
        assert (await stage.services.opinions.of(stage.model.asked[0][0]))["reasoning"]


async def test_a_rollout_that_asks_for_confidence_does_not_take_its_word(
    sqlite_database: Database, tmp_path: Path
) -> None:
    asking = ROLLOUTS.replace("risk: low", "risk: low\n    confidence_at_least: 0.5")
    async with opened(sqlite_database, tmp_path, rollouts=asking, model=Terse()) as stage:
        await stage.enter("read", Phase.ENFORCED)
        assert answer(await stage.decide(legacy="deny", model="allow")) == ("deny", "legacy", "unsure")
