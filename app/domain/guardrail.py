"""Has a rollout become so bad that it must go back?

Every guardrail holds streams of observations against a limit by the e-SR test; only a confirmed wrong allow
needs no statistics. `advance` takes in what is new and judges it. The alpha of a rollout is shared evenly by
the streams that act by themselves, whichever of them have data.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256

from app.domain.assessment import Assessment, Facts, GuardrailOutcome, bare, settled
from app.domain.clock import rfc3339, to_us
from app.domain.condition import percent
from app.domain.condition import rate as share
from app.domain.drift import PAIRS_AT_LEAST, fold_weeks, limit_of, marked, this_week
from app.domain.limits import Action, Guardrail, Risk, default_action
from app.domain.rollout import RolloutPolicy
from app.domain.sampling import smallest_inclusion
from app.domain.stream import ONE, StreamState, fold_labels, fold_totals, seen_of
from app.domain.tallies import Figures, figures_of, missing, tallies_of

_DAY_US = 86_400_000_000


def advance(guardrail: Guardrail, state: StreamState | None, facts: Facts) -> tuple[StreamState, Assessment]:
    """Take in what is new since `state` and judge it; `state` is None before the first look.

    Pure. The stream starts anew by itself where the epoch or the limits are other ones. An alarm stays
    for the epoch, that of a drift for its week. Counters that cannot be true leave the stream as it was
    and the outcome is an error.
    """
    state = _current(guardrail, state, facts)
    try:
        state, judged = _look(guardrail, state, facts)
    except ValueError as error:
        said = f"{guardrail} cannot be read: {error}"
        judged = bare(guardrail, facts.policy, GuardrailOutcome.ERROR, said)
    if state.alarm is not None and not judged.raised:
        span = "week" if guardrail is Guardrail.AGREEMENT_DRIFT else "epoch"
        said = f"{judged.sentence}; the alarm of this {span} stands"
        judged = replace(judged, outcome=GuardrailOutcome.BREACH, sentence=said)
    return settled(state, judged)


def limits_hash(
    policy: RolloutPolicy, guardrail: Guardrail, baseline: Mapping[str, int] | None = None
) -> str:
    """What a stream's meaning hangs on: with another hash it starts anew.

    Also where its breach leads elsewhere than before: what was seen by then was no reason to act.
    """
    limits = policy.guardrails
    _, own = _WATCHED.get(guardrail, ("", ""))
    is_based = guardrail in (Guardrail.SHIFT, Guardrail.PAIRED_SHIFT)
    return _hashed(
        guardrail.value,
        getattr(limits, own, None),
        tuple(sorted((baseline or {}).items())) if is_based else (),
        policy.action(guardrail).value,
        guardrail in limits.dry_run,
        limits.alpha,
        limits.horizon_days,
    )


@lru_cache(maxsize=4096)  # asked of every stream at every look
def _hashed(*parts: object) -> str:
    return sha256(repr(parts).encode()).hexdigest()[:16]


def threshold_of(guardrail: Guardrail, policy: RolloutPolicy) -> float:
    """The evidence that raises the alarm: 1 / alpha of this stream's share.

    One that only notifies has all of alpha to itself. A dry run keeps the threshold that it would have.
    """
    acting = _acting(policy.risk, frozenset(policy.guardrails.actions.items()))
    share = len(acting) if guardrail in acting else 1
    return share / policy.guardrails.alpha


@lru_cache(maxsize=256)
def _acting(risk: Risk, actions: frozenset[tuple[str, Action]]) -> frozenset[Guardrail]:
    """The guardrails with streams that do more than notify."""
    chosen = dict(actions)
    return frozenset(
        each for each in _WATCHED if chosen.get(each, default_action(each, risk)) is not Action.NOTIFY
    )


def _current(guardrail: Guardrail, state: StreamState | None, facts: Facts) -> StreamState:
    evidence = facts.evidence
    digest = limits_hash(facts.policy, guardrail, facts.baseline)
    if state is None or state.epoch != evidence.epoch:
        return StreamState(evidence.epoch, digest, to_us(evidence.epoch_started_at))
    is_unreadable = evidence.problem is not None and guardrail is not Guardrail.OVERRIDE
    if state.limits_hash == digest or is_unreadable:  # what cannot be read is no place to begin from
        return state
    # A limit is chosen in sight of what has been: only what comes after it may speak.
    watermark = facts.labels[-1].decision_id if facts.labels else state.watermark
    seen = seen_of(tallies_of(guardrail, facts))
    marks = marked(seen[ONE]) if guardrail is Guardrail.AGREEMENT_DRIFT else {}
    return StreamState(evidence.epoch, digest, to_us(facts.now), seen=seen, watermark=watermark, marks=marks)


def _look(guardrail: Guardrail, state: StreamState, facts: Facts) -> tuple[StreamState, Assessment]:
    if guardrail is Guardrail.OVERRIDE:
        return _look_at_labels(state, facts)
    if facts.evidence.problem is not None:
        raise ValueError(facts.evidence.problem)
    if guardrail is Guardrail.WRONG_ALLOW:
        return _look_at_wrong_allows(state, facts)
    if guardrail is Guardrail.AGREEMENT_DRIFT:
        return _look_at_weeks(state, facts)
    lacking = missing(guardrail, facts)
    if lacking is not None:
        return state, bare(guardrail, facts.policy, GuardrailOutcome.INSUFFICIENT, lacking)
    return _look_at_totals(guardrail, state, facts)


def _look_at_totals(guardrail: Guardrail, state: StreamState, facts: Facts) -> tuple[StreamState, Assessment]:
    horizon = facts.policy.guardrails.horizon_days
    tallies = tallies_of(guardrail, facts)
    state = fold_totals(state, tallies, now_us=to_us(facts.now), horizon_days=horizon)
    return _judge(guardrail, state, facts, figures_of(guardrail, facts, tallies), since_us=state.at_us)


def _look_at_weeks(state: StreamState, facts: Facts) -> tuple[StreamState, Assessment]:
    guardrail, limits = Guardrail.AGREEMENT_DRIFT, facts.policy.guardrails
    pairs = tallies_of(guardrail, facts)[ONE]
    state = fold_weeks(
        state,
        pairs,
        started_us=to_us(facts.evidence.epoch_started_at),
        now_us=to_us(facts.now),
        horizon_days=limits.horizon_days,
    )
    n, bad = this_week(state)
    limit = limit_of(state, margin=pairs.limit)
    if limit is None:
        said = f"a drift needs a whole week with {PAIRS_AT_LEAST} pairs to compare with; this one has {n}"
        return state, bare(guardrail, facts.policy, GuardrailOutcome.INSUFFICIENT, said)
    return _judge(guardrail, state, facts, (bad / n if n else None, limit, n), since_us=state.at_us)


def _look_at_labels(state: StreamState, facts: Facts) -> tuple[StreamState, Assessment]:
    limits, now_us = facts.policy.guardrails, to_us(facts.now)
    replay = fold_labels(
        state,
        facts.labels,
        limit=limits.override_limit,
        smallest_inclusion=smallest_inclusion(facts.policy.review_rate),
        # An answer may come as late as its deadline, and only then is it drawn.
        now_us=now_us - round(facts.policy.deadline_ms * 1_000),
        horizon_days=limits.horizon_days,
    )
    figures = facts.evidence.override_rate, limits.override_limit, replay.judged
    state, judged = _judge(
        Guardrail.OVERRIDE,
        replay.state,
        facts,
        figures,
        # Late verdicts are no silence: what waits for a person is still to come.
        since_us=now_us if replay.pending else replay.newest_us,
        e_value=replay.e_value,
        peak=replay.peak,
    )
    if replay.pending:
        judged = replace(
            judged, pending=replay.pending, sentence=f"{judged.sentence}, {replay.pending} not judged yet"
        )
    return state, judged


def _look_at_wrong_allows(state: StreamState, facts: Facts) -> tuple[StreamState, Assessment]:
    wrong, judged = facts.evidence.wrong_allows, facts.evidence.reviewed_allows
    said = f"{wrong} wrong allows confirmed, {judged} of the model's allows judged"
    outcome = GuardrailOutcome.OK if judged else GuardrailOutcome.INSUFFICIENT
    if wrong:
        outcome = GuardrailOutcome.BREACH if facts.policy.risk.is_high else GuardrailOutcome.WARNING
    raised = outcome is GuardrailOutcome.BREACH and state.alarm is None
    if raised:
        state = replace(state, alarm=float(wrong))
    told = bare(Guardrail.WRONG_ALLOW, facts.policy, outcome, said)
    return state, replace(told, limit=0.0, n=judged, raised=raised)


def _judge(
    guardrail: Guardrail,
    state: StreamState,
    facts: Facts,
    figures: Figures,
    *,
    since_us: int,
    e_value: float | None = None,
    peak: float | None = None,
) -> tuple[StreamState, Assessment]:
    """What a look at a stream came to, whose newest observation is as old as `since_us`.

    `e_value` is the evidence now, by default the state's own, and `peak` the most on the way.
    """
    (rate, limit, n), threshold = figures, threshold_of(guardrail, facts.policy)
    e_value = state.e_value if e_value is None else e_value
    peak = e_value if peak is None else peak
    breached = peak >= threshold
    raised = breached and state.alarm is None
    if raised:
        state = replace(state, alarm=peak)
    said = f"{_WATCHED[guardrail][0]} {share(rate)} of {n}, limit {percent(limit)}"
    evidence = f"{_readable(peak)} reached" if breached else f"{_readable(e_value)} of"
    said += f": evidence {evidence} {threshold:.4g}"
    outcome = GuardrailOutcome.OK
    if breached:
        outcome = GuardrailOutcome.BREACH
    elif not n:
        outcome = GuardrailOutcome.INSUFFICIENT
    elif to_us(facts.now) - since_us >= facts.policy.guardrails.stale_after_days * _DAY_US:
        outcome, said = GuardrailOutcome.STALE, f"nothing new since {rfc3339(since_us)}: {said}"
    elif e_value >= math.sqrt(threshold):
        outcome = GuardrailOutcome.WARNING
    return state, Assessment(
        guardrail,
        outcome,
        facts.policy.action(guardrail),
        said,
        e_value,
        threshold,
        rate,
        limit,
        n,
        dry_run=guardrail in facts.policy.guardrails.dry_run,
        raised=raised,
    )


def _readable(evidence: float) -> str:
    return f"{evidence:,.0f}" if 1_000 <= evidence < 1e9 else f"{evidence:.3g}"


# What is watched by a stream, and the limit that it is held against: all but a wrong allow.
_WATCHED = {
    Guardrail.OVERRIDE: ("override rate", "override_limit"),
    Guardrail.ERROR: ("error rate", "error_limit"),
    Guardrail.LATENCY: ("share above the latency target", "latency_target_ms"),
    Guardrail.LATENCY_ALERT: ("share above the latency alert", "latency_alert_ms"),
    Guardrail.FALLBACK: ("fallback rate", "fallback_limit"),
    Guardrail.SHIFT: ("shift of the distribution", "shift_limit"),
    Guardrail.PAIRED_SHIFT: ("shift against the legacy engine", "shift_limit"),
    Guardrail.AGREEMENT_DRIFT: ("disagreement this week", "drift_limit"),
    Guardrail.SELF_DISAGREEMENT: ("other answer to the same question", "self_disagreement_limit"),
}
