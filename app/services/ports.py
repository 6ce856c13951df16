"""What do the use cases ask of the models, whichever way they run?"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Protocol

from app.domain.advisory import Advisory, Reasoning
from app.domain.decision import Decision
from app.domain.situation import Situation
from app.engines.model.engine import ModelStatus
from app.engines.model.fleet import Absent
from app.engines.model.version import ModelVersion
from app.engines.model.wire import Priority


class Model(Protocol):
    """One version: `app.engines.model.engine.Engine`, or `Absent` where it is not loaded."""

    @property
    def version_id(self) -> str: ...

    @property
    def shows_legacy(self) -> bool:
        """Whether the prompt holds the legacy answer: then agreement with it is not independent."""
        ...

    @property
    def is_ready(self) -> bool: ...

    @property
    def circuit_open(self) -> bool: ...

    @property
    def status(self) -> ModelStatus: ...

    async def explain(
        self, situation: Situation, advisory: Advisory, *, legacy: Decision | None = None
    ) -> Reasoning: ...

    async def inject(self, fault: str | None) -> None: ...

    async def advise(
        self,
        situation: Situation,
        *,
        priority: Priority,
        deadline_s: float,
        legacy: Decision | None = None,
        scope: Hashable = None,
    ) -> Advisory:
        """The model's answer. A question that was asked before in the same `scope` may be answered from
        memory; without one it never is.
        """
        ...


class Models(Protocol):
    """All versions that this server may ask: `app.engines.model.fleet.Fleet`, or `Sole`."""

    @property
    def default(self) -> Model:
        """The one that a new rollout starts with."""
        ...

    @property
    def loaded(self) -> Sequence[Model]:
        """The default first, then the others that are wanted, also those that could not be loaded."""
        ...

    def of(self, version_id: str) -> Model:
        """The model of a version; one that is not kept ready answers `unavailable`."""
        ...

    def declare(self, version: ModelVersion) -> None:
        """Let it be asked for from now on."""
        ...

    async def want(self, version_ids: Iterable[str]) -> None:
        """Keep these ready from now on, beside the default, and let go of the rest.

        The most important first: where memory does not suffice, the last ones go without.
        """
        ...


def statuses(models: Models) -> dict[str, ModelStatus]:
    """What the models say of themselves, by version: those that this server was to keep ready."""
    return {model.version_id: model.status for model in models.loaded}


class Sole:
    """One model that answers for every version."""

    def __init__(self, model: Model) -> None:
        self.default = model
        self.loaded = (model,)

    def of(self, version_id: str) -> Model:  # noqa: ARG002  # the port's signature
        return self.default

    def declare(self, version: ModelVersion) -> None:
        pass

    async def want(self, version_ids: Iterable[str]) -> None:
        pass


class NoModel(Absent):
    """A plane without a model."""

    def __init__(self) -> None:
        super().__init__("none", "is switched off by PHASEGATE_MODEL=off", loaded_once=True)
