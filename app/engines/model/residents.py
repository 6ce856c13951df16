"""Which versions does one loaded model answer for?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from msgspec import structs

from app.engines.model.cores import thread_count
from app.engines.model.device import Device
from app.engines.model.head import Head
from app.engines.model.layouts import prepare
from app.engines.model.runtime import ModelError, Runtime
from app.engines.model.scoring import Scorer
from app.engines.model.tuning import tuned
from app.engines.model.version import ModelVersion, prompt_of
from app.engines.model.weights import Weights, find_weights


class Residents:
    """Versions by id, on one runtime. Belongs to one thread.

    They share a `runtime_key`, and what this machine was tuned to for them: the layout in which a version
    decides must not depend on its neighbours.
    """

    def __init__(
        self,
        first: ModelVersion,
        *,
        n_ctx: int,
        policies_dir: Path,
        cache_dir: Path,
        model_path: Path | None = None,
    ) -> None:
        """Find, verify, convert where the version says so, and load; no version is admitted yet.

        Takes a second, the first time a few. Raises `PolicyError`, `SettingsError`, `ModelError`,
        `OSError`.
        """
        self._first = first
        self._policies_dir, self._cache_dir, self._model_path = policies_dir, cache_dir, model_path
        self._scorers: dict[str, Scorer] = {}
        self.weights = self._find(first)
        prompt = prompt_of(first, policies_dir=policies_dir)
        how = tuned(first, cache_dir=cache_dir)
        threads = thread_count(how.threads)
        files = prepare(first, self.weights, prompt=prompt, cache_dir=cache_dir, threads=threads)
        self._runtime = Runtime(
            files.model, adapter=files.adapter, decoding=structs.replace(how, n_ctx=n_ctx), threads=threads
        )

    @classmethod
    def open(
        cls,
        versions: Sequence[ModelVersion],
        *,
        policies_dir: Path,
        cache_dir: Path,
        model_path: Path | None = None,
    ) -> Self:
        """Load the model and prepare all of one or more versions. Raises what the two steps raise."""
        residents = cls(
            versions[0],
            n_ctx=max(version.decoding.n_ctx for version in versions),
            policies_dir=policies_dir,
            cache_dir=cache_dir,
            model_path=model_path,
        )
        try:
            for version in versions:
                scorer = residents.admit(version)
                while not scorer.prepare():
                    pass
        except BaseException:
            residents.close()
            raise
        return residents

    @property
    def device(self) -> Device:
        return self._runtime.device

    def close(self) -> None:
        """Free the model. Nothing may be asked afterwards."""
        self._runtime.close()

    def get(self, version_id: str) -> Scorer | None:
        return self._scorers.get(version_id)

    def __getitem__(self, version_id: str) -> Scorer:
        return self._scorers[version_id]

    def admit(self, version: ModelVersion) -> Scorer:
        """Take a version in; it can be asked once its scorer is prepared.

        Raises `ModelError` where it needs another runtime or a larger context, and what loading raises.
        """
        mine, others = self._layout(version), self._layout(self._first)
        if mine != others:
            raise ModelError(
                f"{version.id} needs a worker of its own: it does not run as {self._first.id} does"
            )
        self.drop(version.id)
        prompt = prompt_of(version, policies_dir=self._policies_dir)
        scorer = Scorer(self._runtime, version, prompt, self._head(version))
        self._scorers[version.id] = scorer
        return scorer

    def drop(self, version_id: str) -> None:
        """Forget a version, if it is there."""
        if scorer := self._scorers.pop(version_id, None):
            scorer.drop()

    def _layout(self, version: ModelVersion) -> tuple[object, ...]:
        how = tuned(version, cache_dir=self._cache_dir)
        return (version.runtime_key, how.threads, how.ubatch, how.flash_attention)

    def _find(self, version: ModelVersion) -> Weights:
        return find_weights(
            version,
            policies_dir=self._policies_dir,
            cache_dir=self._cache_dir,
            model_path=self._model_path,
        )

    def _head(self, version: ModelVersion) -> Head | None:
        found = self._find(version)
        if found.head is None:
            return None
        head = Head.load(found.head)
        head.require_basis(version, model_sha256=found.sha256, adapter_sha256=found.adapter_sha256)
        return head
