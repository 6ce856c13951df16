"""What does the caller get in each phase, and what does the model do meanwhile?"""

from pathlib import Path

import pytest

from app.domain.decision import Decision
from app.domain.phase import Phase
from app.engines.model.wire import Priority
from app.store.database import Database
from tests.services.plane import ROLLOUTS, FakeModel, Stage, opened

FAILURES = ("timeout", "malformed", "unsure", "unavailable", "overloaded", "oversize")


def answer(document: dict[str, object]) -> tuple[object, object, object]:
    return document["decision"], document["answered_by"], document["fallback_reason"]


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.ADVISORY])
@pytest.mark.parametrize("model", [*Decision, *FAILURES])
async def test_below_enforced_the_legacy_decision_leaves_whatever_the_model_says(
    stage: Stage, phase: Phase, model: str
) -> None:
    await stage.enter("read", phase)
    document = await stage.decide(legacy="deny", model=model)
    assert answer(document) == ("deny", "legacy", None)
    assert document["phase"] == phase


async def test_below_enforced_a_hanging_model_delays_nobody(stage: Stage) -> None:
    await stage.enter("write", Phase.ADVISORY)
    stage.model.thinks()
    assert answer(await stage.decide("read")) == ("allow", "legacy", None)
    assert answer(await stage.decide("write")) == ("allow", "legacy", None)
    await stage.model.is_thinking()


async def test_in_shadow_the_model_is_observed_in_the_background_and_compared(stage: Stage) -> None:
    document = await stage.decide(legacy="allow", model="deny")
    assert document["advisory"] is None
    await stage.observed(n=1)
    assert stage.evidence("read").totals["pair", "allow>deny"] == 1
    assert [priority for _, priority, _ in stage.model.asked] == [Priority.SHADOW]


async def test_in_shadow_disagreements_are_collected_for_people(stage: Stage) -> None:
    document = await stage.decide(legacy="deny", model="allow")
    await stage.until(lambda: stage.review(document["id"]))
    story = await stage.story(document["id"])
    assert (story["agreement"], story["review"]["kind"]) == (False, "drawn")


async def test_in_advisory_the_model_recommends_with_reasoning(stage: Stage) -> None:
    await stage.enter("write", Phase.ADVISORY)
    document = await stage.decide("write", legacy="allow", model="deny")
    await stage.observed(n=1, rollout="write")
    advisory = (await stage.story(document["id"]))["advisory"]
    assert advisory["decision"] == "deny"
    assert advisory["reasoning"] == "deny, mainly because of details"
    assert advisory["attributions"] == [{"field": "details", "effect": 0.4, "decision_without": "deny"}]


async def test_the_advisory_is_never_waited_for_by_default(stage: Stage) -> None:
    await stage.enter("write", Phase.ADVISORY)
    assert (await stage.decide("write"))["advisory"] is None


@pytest.mark.parametrize(("thinks", "there"), [(False, True), (True, False)])
async def test_the_advisory_comes_along_where_it_is_there_within_the_wait(
    sqlite_database: Database, tmp_path: Path, *, thinks: bool, there: bool
) -> None:
    wait = ROLLOUTS.replace("risk: medium", f"risk: medium\n    advisory_wait_ms: {20 if thinks else 2000}")
    async with opened(sqlite_database, tmp_path, rollouts=wait) as stage:
        await stage.enter("write", Phase.ADVISORY)
        if thinks:
            stage.model.thinks()
        document = await stage.decide("write", legacy="deny", model="allow")
        assert answer(document) == ("deny", "legacy", None)
        assert (document["advisory"] is not None) is there
        stage.model.answers_now()


@pytest.mark.parametrize("model", list(Decision))
async def test_in_enforced_the_model_decides(stage: Stage, model: Decision) -> None:
    await stage.enter("read", Phase.ENFORCED)
    document = await stage.decide(legacy="allow", model=model)
    assert answer(document) == (model, "model", None)
    assert document["advisory"]["decision"] == model
    assert [priority for _, priority, _ in stage.model.asked] == [Priority.BINDING]


async def test_the_model_has_what_is_left_of_the_rollouts_deadline(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await stage.decide()
    (left_s,) = stage.model.deadlines_s
    assert 0 < left_s < 2


async def test_in_enforced_sampled_decisions_are_judged(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    document = await stage.decide()
    review = stage.review(document["id"])
    assert review is not None
    assert (review["kind"], review["inclusion_probability"]) == ("drawn", 1.0)


async def test_exposure_is_sticky_and_the_rest_is_one_phase_lower(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED, exposure=0.5)
    actors = [f"actor-{number}" for number in range(20)]
    first = {actor: (await stage.decide(actor=actor))["phase"] for actor in actors}
    again = {actor: (await stage.decide(actor=actor))["phase"] for actor in actors}
    assert first == again
    assert set(first.values()) == {"enforced", "advisory"}


async def test_only_exposed_decisions_are_evidence(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED, exposure=0.5)
    documents = [await stage.decide(actor=f"actor-{number}") for number in range(20)]
    exposed = sum(document["exposed"] for document in documents)
    await stage.until(lambda: stage.services.observer.queued == 0)
    evidence = stage.evidence("read")
    assert 0 < exposed < 20
    assert evidence.totals["decision", "allow"] == evidence.observed == exposed
    assert evidence.totals["unexposed", "allow"] == 20 - exposed


async def test_the_first_rollout_that_fits_takes_the_situation(stage: Stage) -> None:
    assert (await stage.decide("never-heard-of"))["rollout"] == "other"


async def test_a_version_that_is_shown_the_legacy_answer_gets_it(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path, model=FakeModel(shows_legacy=True)) as stage:
        await stage.enter("read", Phase.ENFORCED)
        await stage.decide(legacy="require_attestation")
        assert [legacy for *_, legacy in stage.model.asked] == ["require_attestation"]


async def test_an_enforced_decision_counts_once_for_what_is_drawn_after_it(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    for _ in range(3):
        await stage.decide()
    [seen] = stage.services.decider._strata._seen.values()
    assert seen.total() == 3
