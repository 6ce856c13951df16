"""How does one ask the model inside one's own process, without a worker?"""

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from app.domain.advisory import Advisory, Outcome, Reasoning
from app.domain.decision import Decision
from app.domain.situation import Situation
from app.engines.model.prompt import Line, write
from app.engines.model.reasons import unexplained, worded
from app.engines.model.runtime import never
from app.engines.model.scoring import Oversize, Reasoner, Scorer, judge, open_scorer
from app.engines.model.version import ModelVersion


class LocalModel:
    """A version that answers in this process, for validation and the in-process advisor.

    Belongs to one thread. A failed assertion inside llama.cpp ends the process: what serves others
    asks `ModelSupervisor` instead.
    """

    def __init__(self, scorer: Scorer, sha256: str) -> None:
        self.version = scorer.version
        self.sha256 = sha256
        self._scorer = scorer

    @classmethod
    def open(
        cls, version: ModelVersion, *, policies_dir: Path, cache_dir: Path, model_path: Path | None = None
    ) -> Self:
        """Load it. Raises `PolicyError`, `SettingsError`, `ModelError`, `OSError`."""
        scorer, weights = open_scorer(
            version, policies_dir=policies_dir, cache_dir=cache_dir, model_path=model_path
        )
        return cls(scorer, weights.sha256)

    def close(self) -> None:
        self._scorer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advise(self, situation: Situation, *, legacy: Decision | None = None) -> Advisory:
        """The model's answer; without a deadline. Raises `ModelError`."""
        began = time.monotonic()
        try:
            scores = self._scorer.score(self._lines(situation, legacy))
        except Oversize:
            return Advisory(self.version.id, Outcome.OVERSIZE, _since(began), started=False)
        outcome = judge(scores, self.version.limits)
        answered = outcome is not Outcome.MALFORMED
        return Advisory(
            version=self.version.id,
            outcome=outcome,
            latency_ms=_since(began),
            decision=scores.decision if answered else None,
            probabilities=scores.probabilities if answered else None,
            confidence=scores.confidence if answered else None,
            coverage=scores.coverage,
            prompt_tokens=scores.prompt_tokens,
        )

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

    def _lines(self, situation: Situation, legacy: Decision | None) -> tuple[Line, ...]:
        return write(situation, legacy=legacy if self.version.show_legacy else None)


def _since(began: float) -> float:
    return (time.monotonic() - began) * 1000
