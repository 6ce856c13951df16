"""What do the use cases ask of the models, whichever way they run?"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from app.domain.advisory import Advisory, Outcome, Reasoning
from app.domain.decision import Decision
from app.domain.situation import Situation
from app.engines.model.link import ModelState
from app.engines.model.supervisor import ModelStatus
from app.engines.model.wire import Priority


class Model(Protocol):
    """`app.engines.model.supervisor.ModelSupervisor`, or `NoModel` where none is configured."""

    @property
    def version_id(self) -> str: ...

    @property
    def shows_legacy(self) -> bool: ...

    @property
    def is_ready(self) -> bool: ...

    @property
    def circuit_open(self) -> bool: ...

    @property
    def status(self) -> ModelStatus: ...

    async def advise(
        self, situation: Situation, *, priority: Priority, deadline_s: float, legacy: Decision | None = None
    ) -> Advisory: ...

    async def explain(
        self, situation: Situation, advisory: Advisory, *, legacy: Decision | None = None
    ) -> Reasoning: ...

    async def inject(self, fault: str | None) -> None: ...


class Models(Protocol):
    """All versions that this server may ask: `app.engines.model.fleet.Fleet`, or `Sole`."""

    @property
    def default(self) -> Model:
        """The one that a new rollout starts with."""
        ...

    @property
    def loaded(self) -> Sequence[Model]:
        """The default first, then the others that are kept ready."""
        ...

    def of(self, version_id: str) -> Model:
        """The model of a version; one that is not kept ready answers `unavailable`."""
        ...

    async def want(self, version_ids: Iterable[str]) -> None:
        """Keep these ready from now on, beside the default, and let go of the rest."""
        ...


class Sole:
    """One model that answers for every version."""

    def __init__(self, model: Model) -> None:
        self.default = model
        self.loaded = (model,)

    def of(self, version_id: str) -> Model:  # noqa: ARG002  # the port's signature
        return self.default

    async def want(self, version_ids: Iterable[str]) -> None:
        pass


class NoModel:
    """A plane without a model: every question to it is `unavailable`, and none was started."""

    version_id = "none"
    shows_legacy = False
    is_ready = False
    circuit_open = False
    status = ModelStatus(
        state=ModelState.DOWN,
        pid=None,
        version="none",
        model="none",
        sha256=None,
        restarts=0,
        queue_depth=0,
        circuit_open=False,
        loaded_once=True,
        load_s=None,
        offloaded_layers=None,
        fault=None,
        error="switched off by PHASEGATE_MODEL=off",
    )

    async def advise(
        self,
        situation: Situation,  # noqa: ARG002  # the port's signature
        *,
        priority: Priority,  # noqa: ARG002
        deadline_s: float,  # noqa: ARG002
        legacy: Decision | None = None,  # noqa: ARG002
    ) -> Advisory:
        return Advisory(self.version_id, Outcome.UNAVAILABLE, latency_ms=0.0, started=False)

    async def explain(
        self,
        situation: Situation,  # noqa: ARG002
        advisory: Advisory,  # noqa: ARG002
        *,
        legacy: Decision | None = None,  # noqa: ARG002
    ) -> Reasoning:
        return Reasoning("no model is configured")

    async def inject(self, fault: str | None) -> None:  # noqa: ARG002
        return None
