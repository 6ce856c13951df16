"""Does a number that Prometheus knows lie above its limit, look after look?"""

from dataclasses import replace

from app.domain.assessment import Answer, Assessment, Facts, GuardrailOutcome, settled
from app.domain.clock import to_us
from app.domain.limits import Query
from app.domain.stream import StreamState


def advance_query(query: Query, state: StreamState | None, facts: Facts) -> tuple[StreamState, Assessment]:
    """Take in one answer and judge it; `state` is None before the first look.

    It breaches while the last `looks` answers or more lay above the limit. No answer is an error: it neither
    adds to a streak nor ends one.
    """
    hashed = (
        f"{query} {query.name in facts.policy.guardrails.dry_run}"  # what led nowhere is no reason to act
    )
    if state is None or (state.epoch, state.limits_hash) != (facts.evidence.epoch, hashed):
        state = StreamState(facts.evidence.epoch, hashed, to_us(facts.now))
    answer = facts.answers.get(query.query, Answer(None, "it was not asked"))
    if answer.value is None:
        said = f"{query.name} is not known: {answer.problem}"
        return state, _assessment(query, facts, GuardrailOutcome.ERROR, said, state)
    before = state.streak
    state = replace(state, streak=before + 1 if answer.value > query.above else 0)
    outcome = GuardrailOutcome.OK
    if state.streak:
        outcome = GuardrailOutcome.BREACH if state.streak >= query.looks else GuardrailOutcome.WARNING
    said = f"{query.name} is {answer.value:.6g}, limit {query.above:.6g}"
    if state.streak:
        said += f": above it at {state.streak} looks in a row, {query.looks} are a breach"
    judged = _assessment(query, facts, outcome, said, state)
    raised = outcome is GuardrailOutcome.BREACH and before < query.looks
    return settled(state, replace(judged, rate=answer.value, raised=raised))


def _assessment(
    query: Query, facts: Facts, outcome: GuardrailOutcome, said: str, state: StreamState
) -> Assessment:
    is_dry = query.name in facts.policy.guardrails.dry_run
    return Assessment(
        query.name, outcome, query.action, said, limit=query.above, n=state.streak, dry_run=is_dry
    )
