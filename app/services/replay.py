"""What would have been decided with another version, policy or phase?

Recorded situations are answered again by the rules that answer live ones. What is not changed is taken as it
was: the engines' answers, the phases, kill switch and staleness of the moment, and which answers were evidence
(repeated questions and actors who ask too much were found then, and are not sought again).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from app.domain.advisory import Advisory, Outcome
from app.domain.decision import Decision, LegacyAnswer
from app.domain.phase import Phase, lowest
from app.domain.rollout import RolloutPolicy, RolloutState
from app.domain.routing import Answer, Engine, FallbackReason, PlaneState, Route, route, settle
from app.domain.situation import Situation
from app.engines.legacy.cedar import CedarEngine
from app.engines.legacy.port import LegacyEngine
from app.engines.legacy.rules import RulesEngine
from app.engines.model.version import ModelVersion
from app.policy.files import parse_yaml, read_text
from app.policy.rollouts import RolloutBook, parse_rollouts
from app.services.plane import Policy
from app.services.policies import PolicyFiles
from app.services.records import as_sure
from app.services.validate import Subject
from app.store.recorded import Recorded

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What is otherwise than it was.

    Without `legacy` and `subject` the engines' recorded answers count; `version` is the subject's.
    With `phase` every decision is in it, for all actors, but below each rollout's ceiling. The guardrails look
    every so many seconds.
    """

    book: RolloutBook
    versions: Mapping[str, ModelVersion]
    legacy: LegacyEngine | None = None
    subject: Subject | None = None
    version: str | None = None
    phase: Phase | None = None
    look_every_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Replayed:
    """A recorded decision, and what it would have been. `version` is the one that was or would be asked."""

    was: Recorded
    situation: Situation
    policy: RolloutPolicy
    version: str
    plan: Route
    legacy: LegacyAnswer
    advisory: Advisory | None
    answer: Answer

    @property
    def model(self) -> Decision | None:
        """The model's decision where it may be relied upon."""
        return self.advisory.answer if self.advisory else None


async def answer_again(was: Recorded, situation: Situation, what: WhatIf) -> Replayed | None:
    """One decision anew; None where the model would have answered, but was not asked then and is not now.

    Whose answer took longer than the rollout's deadline counts as timed out, whoever waited for it.
    """
    policy = what.book.match(situation)
    plan = _plan(was, policy, what)
    legacy = was.legacy if what.legacy is None else await what.legacy.decide(situation)
    advisory = was.advisory
    if what.subject is not None:
        advisory = await _asked(what.subject, situation, plan, legacy)
    elif advisory is not None:
        advisory = _as_its_version_said(advisory, what.versions.get(advisory.version))
    if advisory is None and plan.answered_by is Engine.MODEL:
        return None
    if advisory is not None:
        advisory = as_sure(_in_time(advisory, policy), policy)
    answer = settle(policy, plan, legacy, advisory)
    return Replayed(was, situation, policy, what.version or was.version, plan, legacy, advisory, answer)


def policy_of(path: Path, applied: Policy, files: PolicyFiles) -> Policy:
    """The policy of a directory in the form of `policies/`, or the applied one with a single file in its place.

    The legacy engine is another object than the applied one's exactly where it is to be asked anew.
    Raises `PolicyError`.
    """
    if path.is_dir():
        files = replace(files, policies_dir=path)
        return files.compile("", files.read())
    text = read_text(path)
    if path.suffix == ".cedar":
        return replace(applied, legacy=CedarEngine(text, path=str(path)))
    if "rollouts" in parse_yaml(text, str(path)).entries():
        return replace(applied, book=parse_rollouts(text, path=str(path)))
    return replace(applied, legacy=RulesEngine(text, path=str(path)))


def _plan(was: Recorded, policy: RolloutPolicy, what: WhatIf) -> Route:
    """The route in the phase that applied to this actor then, or in the one that is asked for."""
    phase = lowest(what.phase or was.phase, policy.ceiling)
    state = RolloutState(policy.name, phase, 1.0, 1, was.epoch, _LONG_AGO, was.version)
    reason = was.fallback_reason
    plane = PlaneState(
        kill_switch=reason is FallbackReason.KILL_SWITCH,
        is_stale=reason is FallbackReason.STALE_STATE,
        # It was the recorded version that kept failing: nothing is known of another.
        circuit_open=reason is FallbackReason.CIRCUIT_OPEN and what.subject is None,
    )
    return replace(route(state, 0.0, plane), exposed=was.exposed or what.phase is not None)


async def _asked(
    subject: Subject, situation: Situation, plan: Route, legacy: LegacyAnswer
) -> Advisory | None:
    if Engine.MODEL not in (plan.answered_by, plan.observed_by):
        return None
    return await subject.advise(situation, legacy=legacy.decision if subject.shows_legacy else None)


def _as_its_version_said(advisory: Advisory, version: ModelVersion | None) -> Advisory:
    """Before the rollout's confidence threshold of that time, which another may be tried in place of."""
    shares, coverage = advisory.probabilities, advisory.coverage
    if advisory.outcome is not Outcome.UNSURE or version is None or shares is None or coverage is None:
        return advisory
    return replace(advisory, outcome=version.limits.judge(shares, coverage))


def _in_time(advisory: Advisory, policy: RolloutPolicy) -> Advisory:
    if not advisory.started or advisory.latency_ms <= policy.deadline_ms:
        return advisory
    return replace(advisory, outcome=Outcome.TIMEOUT, decision=None)
