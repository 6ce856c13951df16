"""Who answers when the model cannot, and how strictly?"""

import itertools
from pathlib import Path

import pytest

from app.domain.decision import Decision, stricter
from app.domain.phase import Phase
from app.store.database import Database
from tests.services.plane import ROLLOUTS, Stage, opened
from tests.services.test_phases import FAILURES, answer

PROVOKED = {"timeout", "malformed", "unsure", "overloaded", "oversize"}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_model_that_fails_leads_to_the_legacy_answer_with_its_reason(
    enforced: Stage, failure: str
) -> None:
    for action, legacy in itertools.product(("read", "write"), Decision):
        document = await enforced.decide(action, legacy=legacy, model=failure)
        assert answer(document) == (legacy, "legacy", failure)
        assert document["advisory"]["outcome"] == failure


@pytest.mark.parametrize("failure", FAILURES)
async def test_on_high_risk_a_fallback_that_a_caller_can_provoke_turns_allow_into_attestation(
    enforced: Stage, failure: str
) -> None:
    allow = "require_attestation" if failure in PROVOKED else "allow"
    assert answer(await enforced.decide("deploy", model=failure)) == (allow, "legacy", failure)
    for legacy in ("require_attestation", "deny"):
        document = await enforced.decide("deploy", legacy=legacy, model=failure)
        assert answer(document) == (legacy, "legacy", failure)


@pytest.mark.parametrize("reason", ["unavailable", "circuit_open", "kill_switch", "stale_state"])
async def test_what_no_caller_can_provoke_is_not_tightened(enforced: Stage, reason: str) -> None:
    if reason == "circuit_open":
        enforced.model.circuit_open = True
    if reason == "kill_switch":
        await enforced.services.levers.kill(engaged=True, reason="drill", by=enforced.principal("operator"))
    if reason == "stale_state":
        enforced.clock.passes(seconds=5.1)
    model = reason if reason == "unavailable" else "deny"
    assert answer(await enforced.decide("deploy", model=model)) == ("allow", "legacy", reason)


async def test_an_unsure_model_falls_back_where_the_rollout_asks_for_more_confidence(
    sqlite_database: Database, tmp_path: Path
) -> None:
    asking = ROLLOUTS.replace("risk: low", "risk: low\n    confidence_at_least: 0.95")
    async with opened(sqlite_database, tmp_path, rollouts=asking) as stage:
        await stage.enter("read", Phase.ENFORCED)
        assert answer(await stage.decide(legacy="deny", model="allow")) == ("deny", "legacy", "unsure")


async def test_above_low_risk_the_more_severe_answer_leaves_and_ties_are_the_models(enforced: Stage) -> None:
    for legacy, model in itertools.product(Decision, Decision):
        document = await enforced.decide("write", legacy=legacy, model=model)
        by = "legacy" if legacy.severity > model.severity else "model"
        assert answer(document) == (stricter(legacy, model), by, None)
        assert document["combine"] == "stricter"


async def test_on_low_risk_the_model_answers_but_never_allows_over_a_deny(enforced: Stage) -> None:
    for legacy, model in itertools.product(Decision, Decision):
        document = await enforced.decide("read", legacy=legacy, model=model)
        over_deny = (legacy, model) == (Decision.DENY, Decision.ALLOW)
        assert answer(document) == ("require_attestation" if over_deny else model, "model", None)


async def test_in_enforced_both_engines_are_asked(enforced: Stage) -> None:
    document = await enforced.decide("write", legacy="allow", model="allow")
    assert document["legacy"]["rule"] == "open"
    assert len(enforced.model.asked) == 1


@pytest.mark.parametrize("phase", list(Phase))
async def test_a_failing_legacy_engine_is_deny_in_every_phase(stage: Stage, phase: Phase) -> None:
    for action, model in itertools.product(("read", "write"), ("allow", "timeout")):
        await stage.enter(action, phase)
        document = await stage.decide(action, legacy="fail", model=model)
        assert (document["decision"], document["answered_by"]) == ("deny", "fail_safe")
        assert document["legacy"]["error"] is not None


async def test_a_failing_legacy_engine_is_nothing_to_agree_with(enforced: Stage) -> None:
    document = await enforced.decide("read", legacy="fail", model="deny")
    assert not [metric for metric, _ in enforced.evidence("read").totals if metric in ("pair", "drawn")]
    assert document["review"] is None


async def test_fallbacks_are_counted_by_their_reason(enforced: Stage) -> None:
    await enforced.decide("read", model="timeout")
    await enforced.decide("read", model="oversize")
    assert enforced.evidence("read").fell_back == 2
    assert enforced.evidence("read").totals["fallback", "timeout"] == 1
