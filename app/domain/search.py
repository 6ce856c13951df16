"""Which decisions may be asked for, and by what?"""

from dataclasses import dataclass

from app.domain.advisory import Outcome
from app.domain.decision import AnsweredBy, Decision
from app.domain.phase import Phase
from app.domain.routing import FallbackReason

ANY, NONE = "any", "none"

# What a filter of few values may be: its name on the wire and the values.
CHOICES: dict[str, tuple[str, ...]] = {
    "phase": tuple(Phase),
    "decision": tuple(Decision),
    "legacy": tuple(Decision),
    "model": (*Decision, *(outcome for outcome in Outcome if outcome is not Outcome.OK), NONE),
    "answered_by": tuple(AnsweredBy),
    "fallback": (ANY, NONE, *FallbackReason),
    "review": ("open", "judged", "expired", "closed", NONE),
}


@dataclass(frozen=True, slots=True)
class Filters:
    """What decisions must be like; None means whatever it is. Times in microseconds.

    `decision` and `answered_by` are those in force. `legacy` and `model` are raw answers, `model` also the
    outcome of a model that gave none (`unsure`, `timeout`, …). `fallback` is a reason, `any` or `none`,
    `review` a review's status, or `none`. `epoch` asks for those whose two raw answers are evidence of it.
    """

    rollout: str | None = None
    phase: str | None = None
    decision: str | None = None
    agreement: bool | None = None
    actor_id: str | None = None
    key_id: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    legacy: str | None = None
    model: str | None = None
    answered_by: str | None = None
    fallback: str | None = None
    action_type: str | None = None
    version: str | None = None
    review: str | None = None
    epoch: int | None = None

    @property
    def tells_the_model(self) -> bool:
        """Whether being found by it would tell what a blind reviewer must not know."""
        told = (self.decision, self.agreement, self.model, self.answered_by, self.fallback)
        return any(each is not None for each in told)
