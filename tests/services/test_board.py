"""Does one look at all rollouts say what a look at each of them does, and what matters most?"""

import pytest
from sqlalchemy import event

from app.domain.phase import Phase
from app.services.board import Row, filtered
from app.services.overview import Overview
from tests.services.plane import ROLLOUTS, Stage


def _row(stage: Stage, name: str) -> Row:
    rows: list[Row] = stage.services.board.read()["rows"]
    return next(row for row in rows if row.name == name)


async def test_all_rollouts_at_once_stand_where_each_alone_does(any_stage: Stage) -> None:
    stage = any_stage
    await stage.enter("read", Phase.ENFORCED)
    await stage.serves("read", days=2)
    await stage.judge_all("allow")
    await stage.serves("write", days=1)
    await stage.enter("deploy", Phase.ENFORCED)
    await stage.services.levers.roll_back("deploy", reason="it errs", by=stage.principal("operator"))
    await stage.services.levers.close_investigation(
        "deploy", cause="model", fix="another prompt", by=stage.principal("operator")
    )
    await stage.serves("deploy", days=1)
    await stage.enter("admin", Phase.ADVISORY)
    await stage.services.levers.roll_back("admin", reason="it errs", by=stage.principal("operator"))
    await stage.services.levers.hold("other", reason="lunch", by=stage.principal("operator"))
    of_all = stage.services.rollouts.all()
    alone = [stage.services.rollouts.one(each["name"]) for each in of_all]
    assert of_all == [{name: value for name, value in each.items() if name in of_all[0]} for each in alone]
    overview = Overview(stage.services.plane, stage.services.gates, stage.clock.now)
    with stage.database.read() as connection:
        _, standings = overview.read(connection)
    for standing in standings:
        assert standing.evidence == stage.evidence(standing.state.name), standing.state.name


async def test_the_number_of_queries_does_not_grow_with_the_rollouts(stage: Stage) -> None:
    asked: list[str] = []
    event.listen(stage.database._reader, "before_cursor_execute", lambda *said: asked.append(said[2]))
    stage.services.board.read()
    assert 0 < len(asked) <= 16


async def test_the_sentence_is_what_stands_in_the_way_most(stage: Stage) -> None:
    await stage.serves("write", days=1)
    row = _row(stage, "write")
    assert (row.state, row.to) == ("not_yet", "advisory")
    assert row.sentence == "soak 1 day of 2 days: about 1 day more"
    assert row.more == 0
    await stage.services.levers.hold("write", reason="lunch", by=stage.principal("operator"))
    assert _row(stage, "write").sentence == "held: lunch"


async def test_traffic_is_that_of_every_epoch_of_the_last_day(any_stage: Stage) -> None:
    stage = any_stage
    for number in range(5):
        await stage.decide(actor=f"actor-{number}")
    assert _row(stage, "read").per_minute == 1.0
    stage.clock.passes(hours=3)
    await stage.enter("read", Phase.ADVISORY)
    await stage.decide()
    row = _row(stage, "read")
    assert row.per_minute == 0.2
    assert len(row.hours) == 24
    assert row.hours[-4] == 5 / 60
    stage.clock.passes(days=2)
    assert _row(stage, "read").busiest == 0


async def test_agreement_has_bounds_around_it_and_the_limit_of_the_next_phase(stage: Stage) -> None:
    for number in range(20):
        await stage.decide(model="deny" if number < 5 else "allow", actor=f"actor-{number}")
    await stage.observed(n=20)
    agreement = _row(stage, "read").agreement
    assert (agreement.n, agreement.value, agreement.limit) == (20, 0.75, 0.5)
    assert agreement.lower is not None
    assert agreement.upper is not None
    assert 0 < agreement.lower < 0.75 < agreement.upper < 1


async def test_headroom_is_that_of_the_guardrail_that_is_nearest_to_acting(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    assert _row(stage, "read").headroom is None
    for number in range(10):
        await stage.decide(model="malformed" if number < 3 else "allow", actor=f"actor-{number}")
    await stage.observed(n=10)
    await stage.looks(every_s=5)
    headroom = _row(stage, "read").headroom
    assert headroom is not None
    assert headroom.guardrail == "error"
    assert 0 < headroom.share <= 1


async def test_a_breach_comes_first_and_says_which(stage: Stage) -> None:
    for number in range(20):
        await stage.decide(model="malformed", actor=f"actor-{number}")
    await stage.observed(n=20)
    await stage.looks(every_s=5)
    first = stage.services.board.read()["rows"][0]
    assert (first.name, first.state) == ("read", "breach")
    assert first.sentence.startswith("guardrail error: error rate 100 % of 20")
    assert ("error", "breach") in first.telling


async def test_a_filter_finds_names_and_versions_whatever_their_case(stage: Stage) -> None:
    rows = stage.services.board.read()["rows"]
    assert [row.name for row in filtered(rows, q=" DEP ")] == ["deploy"]
    assert len(filtered(rows, q="FAKE-1")) == ROLLOUTS.count("actions:")
    assert filtered(rows, phase="enforced") == []


async def test_a_guardrail_shows_where_its_evidence_has_been(stage: Stage) -> None:
    for times in range(3):
        for number in range(5):
            await stage.decide(actor=f"actor-{times}-{number}")
        await stage.observed(n=5 * (times + 1))
        await stage.looks(every_s=5)
    error = next(each for each in stage.services.guard.assessments("read") if each["name"] == "error")
    assert [point["rate"] for point in error["trail"]] == [None, 0.0, 0.0, 0.0]
    assert error["trail"][-1]["e_value"] == pytest.approx(error["e_value"], rel=1e-3)
    await stage.enter("read", Phase.ADVISORY)
    await stage.looks(every_s=5)
    error = next(each for each in stage.services.guard.assessments("read") if each["name"] == "error")
    assert len(error["trail"]) <= 1, "a new epoch begins a new trail"
