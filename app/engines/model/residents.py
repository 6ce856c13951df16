"""Which versions does one loaded model answer for?"""

from collections.abc import Sequence
from pathlib import Path

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
    """Versions of one `runtime_key` by id, on one runtime, tuned to this machine. Belongs to one thread."""

    def __init__(
        self,
        versions: Sequence[ModelVersion],
        *,
        policies_dir: Path,
        cache_dir: Path,
        model_path: Path | None = None,
    ) -> None:
        """Find, verify, convert where the first of one or more versions says so, load, and prepare all.

        Takes a second, the first time a few. Raises `PolicyError`, `SettingsError`, `ModelError`,
        `OSError`.
        """
        self._first = first = versions[0]
        self._policies_dir, self._cache_dir, self._model_path = policies_dir, cache_dir, model_path
        self._scorers: dict[str, Scorer] = {}
        self.weights = self._find(first)
        how = tuned(first, cache_dir=cache_dir)
        threads, n_ctx = thread_count(how.threads), max(version.decoding.n_ctx for version in versions)
        prompt = prompt_of(first, policies_dir=policies_dir)
        files = prepare(first, self.weights, prompt=prompt, cache_dir=cache_dir, threads=threads)
        self._runtime = Runtime(
            files.model, adapter=files.adapter, decoding=structs.replace(how, n_ctx=n_ctx), threads=threads
        )
        try:
            for version in versions:
                scorer = self.admit(version)
                while not scorer.prepare():
                    pass
        except BaseException:
            self.close()
            raise

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
        if version.runtime_key != self._first.runtime_key:
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

    def _find(self, version: ModelVersion) -> Weights:
        return find_weights(
            version, policies_dir=self._policies_dir, cache_dir=self._cache_dir, model_path=self._model_path
        )

    def _head(self, version: ModelVersion) -> Head | None:
        found = self._find(version)
        if found.head is None:
            return None
        head = Head.load(found.head)
        head.require_basis(version, model_sha256=found.sha256, adapter_sha256=found.adapter_sha256)
        return head
