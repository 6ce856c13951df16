"""Has a second person seen the evidence and said yes?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.domain.condition import Condition, GateOutcome
from app.domain.phase import Phase
from app.domain.role import Principal
from app.domain.rollout import RolloutState


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's word that a rollout may enter a phase, good for one epoch and version.

    `name` and `actors` are those of the key `key_id`.
    """

    id: str
    rollout: str
    to: Phase
    epoch: int
    version: str
    key_id: str
    name: str
    actors: frozenset[str]

    def concerns(self, state: RolloutState) -> bool:
        """Whether it was given on the evidence that the rollout has now."""
        return (self.rollout, self.epoch, self.version) == (state.name, state.epoch, state.version)


def counted(approvals: Iterable[Approval], by: Principal | None) -> list[Approval]:
    """Those of different people, none of them `by`, who promotes.

    Two keys are one person's where they share an actor.
    """
    keys, actors = ({by.key_id}, set(by.actors)) if by else (set[str](), set[str]())
    found = []
    for approval in approvals:
        if approval.key_id not in keys and actors.isdisjoint(approval.actors):
            found.append(approval)
            keys.add(approval.key_id)
            actors |= approval.actors
    return found


def approvals(
    given: Sequence[Approval],
    by: Principal | None,
    *,
    rollout: str,
    to: Phase,
    at_least: int,
    carried: bool,
) -> Condition:
    """Enough others have approved what the evidence says; void where it is no longer `carried` by that."""
    good = counted(given, by) if carried else []
    missing = max(at_least - len(good), 0)
    said = f"{len(good)} of {at_least} approvals"
    if good:
        said += f" (by {', '.join(f'{each.name}, key {each.key_id}' for each in good)})"
    if given and not carried:
        said += f"; the word of {', '.join(each.name for each in given)} is void: the evidence is not enough"
    elif len(given) > len(good):
        said += "; one's own does not count, nor a second one of the same person"
    if missing:
        said += f"; an approver other than who promotes: phasegate approve {rollout} --to {to} --reason …"
    outcome = GateOutcome.INSUFFICIENT if missing else GateOutcome.PASS
    return Condition("approvals", outcome, said, float(len(good)), None, float(at_least), len(given), missing)
