"""Which versions are kept ready, and who answers for the others?"""

import asyncio
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from pathlib import Path

from app.domain.advisory import Advisory, Outcome, Reasoning
from app.engines.model.engine import Engine, ModelState, ModelStatus
from app.engines.model.link import Patience
from app.engines.model.memory import MIB, estimate
from app.engines.model.remote import RemoteModel
from app.engines.model.supervisor import ModelSupervisor
from app.engines.model.version import ModelVersion
from app.engines.model.weights import find_model
from app.errors import PhasegateError


class Absent:
    """Stands for a version that is not loaded: every question is `unavailable`, and none was started."""

    shows_legacy = False
    is_ready = False
    circuit_open = False

    def __init__(self, version_id: str, why: str, *, loaded_once: bool = False) -> None:
        self.version_id = version_id
        self.status = ModelStatus(
            ModelState.DOWN, version_id, model="none", loaded_once=loaded_once, error=why
        )

    async def advise(self, *_: object, **__: object) -> Advisory:
        return Advisory(self.version_id, Outcome.UNAVAILABLE, latency_ms=0.0, started=False)

    async def explain(self, *_: object, **__: object) -> Reasoning:
        return Reasoning(f"there is no reasoning: {self.version_id} {self.status.error}")

    async def inject(self, *_: object, **__: object) -> None:
        return None


class Fleet:
    """All versions that are declared; the default and those that are wanted are kept ready.

    Versions with one `runtime_key` share a worker. The workers together stay below `memory_bytes` by
    estimate: what is wanted and does not fit answers `unavailable` and says so. Create and use it inside
    one event loop.
    """

    def __init__(
        self,
        versions: Iterable[ModelVersion],
        *,
        default: ModelVersion,
        memory_bytes: int,
        policies_dir: Path,
        cache_dir: Path,
        model_path: Path | None = None,
        drills: bool = False,
        fault: str | None = None,
        queue_limit: int = 64,
        patience: Patience | None = None,
    ) -> None:
        """Nothing is started yet. `model_path` replaces the default's file, wherever a version names it.

        Raises `SettingsError` or `PolicyError` where the default cannot be asked at all.
        """
        self._declared = {version.id: version for version in versions}
        self._first, self._memory_bytes = default, memory_bytes
        self._policies_dir, self._model_path = policies_dir, model_path
        self._supervise = partial(
            ModelSupervisor,
            cache_dir=cache_dir,
            policies_dir=policies_dir,
            drills=drills,
            queue_limit=queue_limit,
            patience=patience,
        )
        self._ready: dict[str, Engine] = {}
        self._absent: dict[str, Absent] = {}
        self._wanted: tuple[str, ...] | None = None  # None: arrange anew, whatever is asked for
        self._arranging = asyncio.Lock()
        self.default = self._ready[default.id] = self._open(default, fault=fault)

    def of(self, version_id: str) -> Engine | Absent:
        """A version's model; one that is not kept ready answers `unavailable` and says why in its status."""
        return self._ready.get(version_id) or self._absent.get(version_id) or self._unwanted(version_id)

    @property
    def loaded(self) -> Sequence[Engine | Absent]:
        """The default first, then the others that are wanted, refused ones included."""
        return (*self._ready.values(), *self._absent.values())

    def declare(self, version: ModelVersion) -> None:
        """Make a version known, or known anew; it is loaded once it is wanted."""
        self._declared[version.id] = version
        self._wanted = None

    async def start(self) -> None:
        """Start the default in the background."""
        await self.default.start()

    async def stop(self) -> None:
        """End all workers; what is still asked is `unavailable`."""
        async with self._arranging:
            await asyncio.gather(*(model.stop() for model in self._ready.values()))

    async def want(self, version_ids: Iterable[str]) -> None:
        """Keep these ready from now on, the most important first, and let go of what nobody wants.

        Returns before the new ones have loaded. Those that stay are not disturbed.
        """
        wanted = tuple(dict.fromkeys((self._first.id, *version_ids)))
        if wanted == self._wanted:
            return
        async with self._arranging:
            self._wanted = wanted
            self._absent = {}
            fitting = self._fitting(wanted)
            kept = {version.runtime_key for version in fitting.values()}
            surplus = [self._declared[known] for known in self._ready if known not in fitting]
            # A worker that ends makes room for those that begin; one that stays takes them in first.
            await self._let_go(version for version in surplus if version.runtime_key not in kept)
            for version in fitting.values():
                if version.id not in self._ready:
                    await self._begin(version)
            await self._let_go(version for version in surplus if version.runtime_key in kept)

    async def _let_go(self, versions: Iterable[ModelVersion]) -> None:
        for version in versions:
            await self._ready.pop(version.id).stop()

    async def _begin(self, version: ModelVersion) -> None:
        try:
            engine = self._open(version)
        except PhasegateError as error:
            self._absent[version.id] = Absent(version.id, str(error))
            return
        await engine.start()
        self._ready[version.id] = engine

    def _open(self, version: ModelVersion, *, fault: str | None = None) -> Engine:
        if version.model.remote is not None:
            return RemoteModel(version, policies_dir=self._policies_dir)
        for mate in self._ready.values():
            if isinstance(mate, ModelSupervisor) and mate.version.runtime_key == version.runtime_key:
                return mate.beside(version)
        return self._supervise(version, model_path=self._path_for(version), fault=fault)

    def _fitting(self, wanted: tuple[str, ...]) -> dict[str, ModelVersion]:
        """What of the wanted there is and has room, in that order; the rest becomes absent."""
        fitting: dict[str, ModelVersion] = {}
        workers: dict[Hashable, int] = {}
        for version_id in wanted:
            version = self._declared.get(version_id)
            if version is None:
                self._absent[version_id] = self._unwanted(version_id)
                continue
            needed = 0 if version.runtime_key in workers else self._needed(version)
            taken = sum(workers.values())
            if version_id != self._first.id and needed > max(self._memory_bytes - taken, 0):
                self._absent[version_id] = Absent(version_id, _no_room(needed, taken, self._memory_bytes))
                continue
            workers[version.runtime_key] = workers.get(version.runtime_key, needed)
            fitting[version_id] = version
        return fitting

    def _needed(self, version: ModelVersion) -> int:
        """Bytes of a worker for it; 0 where it needs none, or where loading will say what is wrong."""
        if version.model.remote is not None:
            return 0
        try:
            model = find_model(version, policies_dir=self._policies_dir, model_path=self._path_for(version))
            return estimate(version, model)
        except (PhasegateError, OSError):
            return 0

    def _path_for(self, version: ModelVersion) -> Path | None:
        return self._model_path if version.model == self._first.model else None

    def _unwanted(self, version_id: str) -> Absent:
        if version_id in self._declared:
            return Absent(
                version_id, "is not loaded: no rollout has it as version, candidate or previous one"
            )
        return Absent(version_id, "is not declared in policies/versions")


def _no_room(needed: int, taken: int, limit: int) -> str:
    return (
        f"needs about {needed / MIB:.0f} MiB beside the {taken / MIB:.0f} MiB of the others; "
        f"PHASEGATE_MODEL_MEMORY_MB allows {limit / MIB:.0f} in all"
    )
