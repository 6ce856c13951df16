"""How does one ask the model inside one's own process, without a worker?"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from app.domain.advisory import Advisory, Reasoning
from app.domain.decision import Decision
from app.domain.situation import Situation
from app.engines.model.explaining import Reasoner
from app.engines.model.prompt import Line, write
from app.engines.model.reasons import unexplained, worded
from app.engines.model.residents import Residents
from app.engines.model.runtime import Hidden, never
from app.engines.model.scoring import Oversize, Scorer, Scores
from app.engines.model.version import ModelVersion


class LocalModel:
    """A version that answers in this process, for validation and the in-process advisor.

    Belongs to one thread. A failed assertion inside llama.cpp ends the process: what serves others
    asks `ModelSupervisor` instead.
    """

    def __init__(self, residents: Residents, scorer: Scorer) -> None:
        self.version = scorer.version
        self.sha256 = residents.weights.sha256
        self._residents = residents
        self._scorer = scorer

    @classmethod
    def open(
        cls, version: ModelVersion, *, policies_dir: Path, cache_dir: Path, model_path: Path | None = None
    ) -> Self:
        """Load it. Raises `PolicyError`, `SettingsError`, `ModelError`, `OSError`."""
        residents = Residents(
            (version,), policies_dir=policies_dir, cache_dir=cache_dir, model_path=model_path
        )
        return cls(residents, residents[version.id])

    def close(self) -> None:
        self._residents.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advise(self, situation: Situation, *, legacy: Decision | None = None) -> Advisory:
        """The model's answer; without a deadline. Raises `ModelError`."""
        began = time.monotonic()
        try:
            scores = self._scorer.score(self._lines(situation, legacy))
        except Oversize:
            scores = None
        return self._advisory(scores, latency_ms=_since(began))

    def observe(self, asked: Sequence[tuple[Situation, Decision | None]]) -> list[Advisory]:
        """Answers to situations, each with its legacy answer, as the worker scores them in shadow.

        That is together where the version batches them: each latency is then its share of the whole.
        Raises `ModelError`.
        """
        began = time.monotonic()
        found = self._scorer.score_many([self._lines(situation, legacy) for situation, legacy in asked])
        share_ms = _since(began) / max(len(found), 1)
        return [self._advisory(scores, latency_ms=share_ms) for scores in found]

    def hidden(self, situation: Situation, *, legacy: Decision | None = None) -> Hidden:
        """The model's hidden state (width,) where it decides. Raises `Oversize`, `ModelError`."""
        return self._scorer.hidden(self._lines(situation, legacy))

    def explain(
        self, situation: Situation, advisory: Advisory, *, legacy: Decision | None = None
    ) -> Reasoning:
        """The reasons, all of them. Raises `ModelError`."""
        if advisory.decision is None or advisory.confidence is None:
            return unexplained(advisory, "there is no decision to explain")
        lines = self._lines(situation, legacy)
        reasoner = Reasoner(lines, advisory.decision, advisory.confidence, self.version.reasoning)
        while not reasoner.done:
            reasoner.advance(self._scorer, never)
        return worded(advisory, reasoner.effects, generated=reasoner.generated, lines=lines)

    def _advisory(self, scores: Scores | None, *, latency_ms: float) -> Advisory:
        return self._scorer.answer(scores).advisory(self.version.id, latency_ms=latency_ms)

    def _lines(self, situation: Situation, legacy: Decision | None) -> tuple[Line, ...]:
        return write(situation, legacy=legacy if self.version.show_legacy else None)


def _since(began: float) -> float:
    return (time.monotonic() - began) * 1000
