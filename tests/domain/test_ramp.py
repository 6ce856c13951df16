"""Does a ramp go up only on proof, and come down on harm?"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.circumstance import Surroundings
from app.domain.clock import to_us
from app.domain.condition import GateOutcome
from app.domain.counters import Metric
from app.domain.evidence import Evidence, unreadable
from app.domain.freeze import Frozen
from app.domain.phase import Phase
from app.domain.ramp import (
    Act,
    RampAssessment,
    RampContext,
    Watched,
    assess_ramp,
    carried_out,
    steps_up_to,
    to_wire,
)
from app.domain.rollout import Ramp, RampState, RolloutState, exposed, new_epoch, reset_to_shadow, rolled_back
from tests.domain import making
from tests.domain.making import NOW, START
from tests.domain.test_ratio import counted

STEPS = (0.05, 0.25, 0.5, 1.0)
POLICY = making.policy(exposure=STEPS, ramp_step_hours=24.0, ramp_observations=50)
QUIET = (Watched("error", "ok", "error rate 0"), Watched("override", "insufficient", "no verdicts"))
ALERT = Watched("latency_alert", "breach", "share above the latency alert 0.4 of 90")


def ramp(**changes: Any) -> Ramp:
    plain = Ramp(STEPS, "key-1", START, NOW - timedelta(days=1), 1_000, 100)
    return replace(plain, **changes)


def state(*, at: float = 0.05, **changes: Any) -> RolloutState:
    own = changes.pop("ramp", None) or ramp()
    return making.state(phase=Phase.ENFORCED, exposure=at, ramp=own, **changes)


def evidence(
    *, served_s: int = 86_400, observed: int = 50, more: dict[tuple[Metric, str], int] | None = None
) -> Evidence:
    """So much served and observed since the step of `ramp` began."""
    totals = {(Metric.SERVED_S, "all"): 1_000 + served_s, (Metric.OBSERVATION, "ok"): 100 + observed}
    return making.evidence({**totals, **(more or {})})


def judged(of: RolloutState | None = None, seen: Evidence | None = None, **context: Any) -> RampAssessment:
    hindering = {
        name: context.pop(name) for name in ("kill_switch", "clock_jump_us", "frozen") if name in context
    }
    facts = RampContext(**{"guardrails": QUIET, "around": Surroundings(**hindering), **context})
    return assess_ramp(POLICY, of or state(), seen or evidence(), facts, now=NOW)


def done(of: RolloutState | None = None, seen: Evidence | None = None, **context: Any) -> tuple[Act, float]:
    """What is done, and the exposure from then on."""
    assessment = judged(of, seen, **context)
    return assessment.act, assessment.to


def test_a_quiet_step_that_was_held_long_enough_goes_one_up() -> None:
    assert done() == (Act.UP, 0.25)
    assert done(state(at=0.25)) == (Act.UP, 0.5)
    assert judged().sentence.startswith("from 5 % to 25 %: served 1 day of 1 day")


def test_the_last_approved_step_ends_the_ramp_where_it_is() -> None:
    assert done(state(at=1.0)) == (Act.DONE, 1.0)
    half = state(at=0.5, ramp=ramp(steps=STEPS[:3]))
    after = carried_out(half, judged(half), evidence(), now=NOW)
    assert (after.exposure, after.ramp and after.ramp.state) == (0.5, RampState.DONE)
    assert after.ramp is not None
    assert to_wire(after, after.ramp, None)["sentence"].startswith("done: served 1 day of 1 day at 50 %")


UNREADABLE = unreadable("read", "v1", epoch=1, epoch_started_at=START, problem="a negative counter")
WAITS: dict[str, tuple[dict[str, Any], str]] = {
    "hours": ({"seen": evidence(served_s=86_399)}, "served"),
    "observations": ({"seen": evidence(observed=49)}, "observations"),
    "a guardrail that cannot be read": (
        {"guardrails": (*QUIET, Watched("shift", "error", "?"))},
        "guardrails",
    ),
    "evidence that cannot be read": ({"seen": UNREADABLE}, "evidence"),
    "a warning": ({"guardrails": (*QUIET, Watched("error", "warning", "near"))}, "guardrails"),
    "a stale stream": ({"guardrails": (*QUIET, Watched("error", "stale", "old"))}, "guardrails"),
    "no pass of late": ({"are_guardrails_stale": True}, "guardrails"),
    "no guardrail judged": ({"guardrails": ()}, "guardrails"),
    "a hold": ({"of": state(held=True)}, "held"),
    "the kill switch": ({"kill_switch": True}, "kill_switch"),
    "a freeze": ({"frozen": Frozen("frozen: the holidays", None)}, "freeze"),
    "a jumped clock": ({"clock_jump_us": to_us(NOW)}, "clock"),
}


@pytest.mark.parametrize(("facts", "name"), WAITS.values(), ids=list(WAITS))
def test_a_ramp_waits_for(facts: dict[str, Any], name: str) -> None:
    assessment = judged(**facts)
    open_ones = [each for each in assessment.conditions if each.outcome is not GateOutcome.PASS]
    assert (assessment.act, assessment.to, open_ones[0].name) == (Act.WAIT, 0.05, name)
    assert open_ones[0].sentence in assessment.sentence


def test_without_data_nothing_goes_up() -> None:
    assert judged(seen=making.evidence({})).act is Act.WAIT


@pytest.mark.parametrize(
    "facts", [{}, {"of": state(at=0.5, held=True)}, {"kill_switch": True}, {"frozen": Frozen("x", None)}]
)
def test_harm_ends_the_ramp_one_step_down_whatever_holds_it(facts: dict[str, Any]) -> None:
    before = facts.get("of", state(at=0.5))
    assessment = judged(**{**facts, "of": before, "guardrails": (*QUIET, ALERT)})
    after = carried_out(before, assessment, evidence(), now=NOW)
    assert (after.exposure, after.ramp and after.ramp.state) == (0.25, RampState.STOPPED)
    assert assessment.sentence == f"stopped at 25 %: guardrail latency_alert, breach: {ALERT.sentence}"


def test_a_breach_is_harm_although_nobody_has_looked_since() -> None:
    assert done(state(at=0.5), guardrails=(ALERT,), are_guardrails_stale=True) == (Act.STOP, 0.25)


def test_below_the_first_step_there_is_none() -> None:
    assert done(guardrails=(ALERT,)) == (Act.STOP, 0.05)


def test_after_a_step_time_and_observations_begin_anew() -> None:
    seen = evidence()
    after = carried_out(state(), judged(), seen, now=NOW)
    assert done(after, seen) == (Act.WAIT, 0.25)
    assert (after.exposure, after.revision) == (0.25, 2)


def test_a_broken_sample_ratio_ends_the_ramp_at_the_first_step_before_anything_else_is_read() -> None:
    skewed = evidence(more=counted((400, 200), share=0.25))
    assessment = judged(state(at=0.25), skewed, guardrails=(ALERT,))
    assert assessment.why == "200 of 400 actors exposed, expected 25 % of them: no chance of the draw"
    after = carried_out(state(at=0.25), assessment, skewed, now=NOW)
    assert (after.exposure, after.ramp and after.ramp.state) == (0.05, RampState.STOPPED)


@pytest.mark.parametrize(
    "of", [state(ramp=ramp(steps=(0.05, 0.5))), state(at=0.3)], ids=["other steps", "between two"]
)
def test_a_ramp_of_other_steps_than_the_policy_ends_where_the_rollout_is(of: RolloutState) -> None:
    assert done(of, guardrails=(ALERT,)) == (Act.STOP, of.exposure)


def test_what_ends_an_epoch_or_is_done_by_hand_ends_the_ramp() -> None:
    running = state()
    rolled = rolled_back(running, POLICY, now=NOW)
    assert rolled is not None
    assert rolled.ramp is None
    assert new_epoch(running, now=NOW).ramp is None
    assert exposed(running, exposure=0.25).ramp is None


def test_a_ramp_that_has_ended_is_not_judged() -> None:
    over = state(ramp=ramp(state=RampState.STOPPED, why="enough"))
    with pytest.raises(ValueError, match="no running ramp"):
        judged(over)
    assert over.ramp is not None
    assert to_wire(over, over.ramp, None)["sentence"] == "stopped: enough"


CHANGES: dict[str, Callable[[RolloutState], RolloutState]] = {
    "rollback": lambda of: rolled_back(of, POLICY, now=NOW) or of,
    "epoch": lambda of: new_epoch(of, now=NOW),
    "shadow": lambda of: reset_to_shadow(of, now=NOW),
    "by hand": lambda of: exposed(of, exposure=0.25),
}
HELD: dict[str, dict[str, Any]] = {
    "warning": {"guardrails": (*QUIET, Watched("error", "warning", ""))},
    "breach": {"guardrails": (*QUIET, ALERT)},
    "error": {"guardrails": (Watched("shift", "error", ""),)},
    "killed": {"kill_switch": True},
    "frozen": {"frozen": Frozen("", None)},
    "unjudged": {"are_guardrails_stale": True},
}
happenings = st.sampled_from(["quiet", "quiet", "quiet", "short", "thin", "skewed", "held", *HELD, *CHANGES])


@given(st.lists(happenings, max_size=12), st.sampled_from(STEPS), st.sampled_from(STEPS[:2]))
def test_automation_never_goes_past_what_a_person_approved(
    history: list[str], top: float, first: float
) -> None:
    """Law 4, over whatever happens in between."""
    approved = ramp(steps=steps_up_to(POLICY, max(top, first)), served_before_s=0, observed_before=0)
    before, served, observed = state(at=first, ramp=approved), 0, 0
    for happening in history:
        before = CHANGES[happening](before) if happening in CHANGES else before
        before = replace(before, held=happening == "held")
        served += 0 if happening == "short" else 90_000
        observed += 0 if happening == "thin" else 60
        approval = before.running_ramp
        if approval is None:
            continue
        arms = counted((300, 290), share=before.exposure) if happening == "skewed" else {}
        totals = {(Metric.SERVED_S, "all"): served, (Metric.OBSERVATION, "ok"): observed, **arms}
        seen = making.evidence(totals, epoch=before.epoch)
        assessment = judged(before, seen, **HELD.get(happening, {}))
        after = carried_out(before, assessment, seen, now=NOW)
        assert (after.phase, after.epoch, after.version) == (before.phase, before.epoch, before.version)
        if after.exposure > before.exposure:
            assert happening in ("quiet", "short", "thin")
            assert served - approval.served_before_s >= 24 * 3_600
            assert observed - approval.observed_before >= 50
            assert before.epoch == 1
            assert after.exposure <= top
            assert after.exposure == STEPS[STEPS.index(before.exposure) + 1]
        before = after
