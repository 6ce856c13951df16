"""Who answers for a version that is not loaded?"""

from collections.abc import Hashable

from app.domain.advisory import Advisory, Outcome, Reasoning
from app.domain.decision import Decision
from app.domain.situation import Situation
from app.engines.model.link import ModelState
from app.engines.model.supervisor import ModelStatus
from app.engines.model.wire import Priority


class Absent:
    """Stands for a version that is not loaded: every question is `unavailable`, and none was started."""

    shows_legacy = False
    is_ready = False
    circuit_open = False

    def __init__(self, version_id: str, why: str, *, loaded_once: bool = False) -> None:
        self.version_id = version_id
        self.status = ModelStatus(
            state=ModelState.DOWN,
            pid=None,
            version=version_id,
            model="none",
            sha256=None,
            restarts=0,
            queue_depth=0,
            circuit_open=False,
            loaded_once=loaded_once,
            load_s=None,
            offloaded_layers=None,
            fault=None,
            error=why,
        )

    async def advise(
        self,
        situation: Situation,  # noqa: ARG002  # the port's signature
        *,
        priority: Priority,  # noqa: ARG002
        deadline_s: float,  # noqa: ARG002
        legacy: Decision | None = None,  # noqa: ARG002
        scope: Hashable = None,  # noqa: ARG002
    ) -> Advisory:
        return Advisory(self.version_id, Outcome.UNAVAILABLE, latency_ms=0.0, started=False)

    async def explain(
        self,
        situation: Situation,  # noqa: ARG002
        advisory: Advisory,  # noqa: ARG002
        *,
        legacy: Decision | None = None,  # noqa: ARG002
    ) -> Reasoning:
        return Reasoning(f"there is no reasoning: {self.version_id} {self.status.error}")

    async def inject(self, fault: str | None) -> None:  # noqa: ARG002
        return None
