"""What is still to be found out for an explanation, one step at a time?"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.domain.decision import Decision
from app.engines.model.prompt import Line
from app.engines.model.reasons import Effect
from app.engines.model.runtime import Abort
from app.engines.model.scoring import Scorer
from app.engines.model.version import Reason

_FIELDS = 16  # of a caller who sends hundreds, the first ones: those a prompt knows


@dataclass(slots=True)
class Reasoner:
    """The work on one explanation. It keeps what it has done, so it may be aborted and taken up again."""

    lines: Sequence[Line]
    decision: Decision
    confidence: float
    reasoning: Reason
    effects: list[Effect] = field(default_factory=list)
    generated: str | None = None

    @property
    def done(self) -> bool:
        return self._next_line is None and (self.generated is not None or self.reasoning == "attributed")

    @property
    def _next_line(self) -> int | None:
        index = len(self.effects)
        return index if self.reasoning != "generated" and index < min(len(self.lines), _FIELDS) else None

    def advance(self, scorer: Scorer, abort: Abort) -> None:
        """Leave out one more field, or generate. Raises what `Scorer` raises."""
        index = self._next_line
        if index is None:
            self.generated = scorer.generate(self.lines, self.decision, abort=abort)
            if not self.generated:  # never an empty reason: fall back to leaving fields out
                self.reasoning = "attributed"
            return
        rest = [line for position, line in enumerate(self.lines) if position != index]
        scores = scorer.score(rest, abort=abort)
        effect = self.confidence - scores.probabilities.of(self.decision)
        self.effects.append(Effect(self.lines[index].field, effect, scores.decision, scores.confidence))
