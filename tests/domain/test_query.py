from dataclasses import replace
from typing import Any

import pytest

from app.domain.assessment import Answer, Assessment, Facts, GuardrailOutcome
from app.domain.limits import Action, GuardrailLimits, Query
from app.domain.phase import Phase
from app.domain.query import advance_query
from app.domain.stream import StreamState
from app.store.streams import from_json, to_json
from tests.domain.making import NOW, evidence, policy

OK, WARNING, BREACH, INSUFFICIENT, ERROR, DRY_RUN, STALE = GuardrailOutcome
QUERY = Query("error-budget", "slo:burn", 2.0, looks=3, action=Action.HOLD)


def facts(value: float | None, **changes: Any) -> Facts:
    answer = Answer(value, "" if value is not None else "no answer")
    limits = GuardrailLimits(queries=(QUERY,))
    plain = Facts(policy(guardrails=limits), Phase.ENFORCED, evidence({}), NOW, answers={QUERY.query: answer})
    return replace(plain, **changes)


def looks(*values: float | None) -> list[Assessment]:
    state: StreamState | None = None
    said = []
    for value in values:
        state, assessment = advance_query(QUERY, state, facts(value))
        state = from_json(to_json(state))
        said.append(assessment)
    return said


@pytest.mark.parametrize(
    ("values", "outcomes"),
    [
        pytest.param([1, 2], [OK, OK], id="at the limit"),
        pytest.param([3, 3, 3, 3], [WARNING, WARNING, BREACH, BREACH], id="three looks in a row"),
        pytest.param([3, 3, 1, 3], [WARNING, WARNING, OK, WARNING], id="a look below begins anew"),
        pytest.param([3, 3, None, 3], [WARNING, WARNING, ERROR, BREACH], id="no answer is no good news"),
        pytest.param([None] * 4, [ERROR] * 4, id="no answer is no harm"),
        pytest.param([3, 3, 3, 1], [WARNING, WARNING, BREACH, OK], id="a breach that is over"),
    ],
)
def test_a_query_breaches_above_its_limit_at_looks_in_a_row(
    values: list[float | None], outcomes: list[GuardrailOutcome]
) -> None:
    assert [one.outcome for one in looks(*values)] == outcomes


def test_a_first_warning_and_each_breach_are_raised_once() -> None:
    raised = [one.raised for one in looks(3, 1, 3, 3, 3, 3, 1, 3, 3, 3)]
    assert raised == [True, False, False, False, True, False, False, False, False, True]


def test_a_query_says_what_it_read() -> None:
    *_, last = looks(3, 3.5)
    assert (last.name, last.action, last.rate, last.limit, last.n) == ("error-budget", Action.HOLD, 3.5, 2, 2)
    assert "error-budget is 3.5, limit 2: above it at 2 looks in a row, 3 are a breach" in last.sentence


def test_a_query_that_runs_dry_breaches_nothing() -> None:
    state: StreamState | None = None
    for _ in range(3):
        dry = policy(guardrails=GuardrailLimits(queries=(QUERY,), dry_run=(QUERY.name,)))
        state, last = advance_query(QUERY, state, facts(9, policy=dry))
    assert (last.outcome, last.dry_run) == (DRY_RUN, True)
    assert last.sentence.endswith("it would have held the rollout")


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        pytest.param(QUERY, facts(3, evidence=evidence({}, epoch=2)), id="epoch"),
        pytest.param(replace(QUERY, above=2.000_000_1), facts(3), id="limit"),
        pytest.param(replace(QUERY, action=Action.ROLLBACK), facts(3), id="action"),
        pytest.param(
            QUERY, facts(3, policy=policy(guardrails=GuardrailLimits(dry_run=(QUERY.name,)))), id="dry run"
        ),
    ],
)
def test_another_epoch_limit_or_effect_begins_a_streak_anew(query: Query, seen: Facts) -> None:
    state, _ = advance_query(QUERY, None, facts(3))
    state, _ = advance_query(QUERY, state, facts(3))
    assert advance_query(query, state, seen)[1].outcome is WARNING


def test_a_query_that_nobody_asked_is_an_error() -> None:
    assert advance_query(QUERY, None, facts(1, answers={}))[1].outcome is ERROR
