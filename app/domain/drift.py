"""Do the engines agree less this week than in the last one?

Weeks are counted from the epoch's start. The last complete one with pairs enough is the reference; this
week's disagreements are held against its share and a margin. With the next week the reference moves on and
the stream starts anew, with its part of the horizon's allowance.
"""

from dataclasses import replace

from app.domain.sequential import start
from app.domain.stream import ONE, Counted, Counts, StreamState, Tally, fold_totals, gain

PAIRS_AT_LEAST = 300  # in a week that others are held against

_DAYS = 7
_WEEK_US = _DAYS * 86_400_000_000
_HIGHEST = 0.999  # more than every disagreement is none
_WEEK, _REFERENCE = "week", "reference"  # marks: counts at the week's beginning, and those of a whole week


def marked(counts: Counts) -> dict[str, Counts]:
    """The marks of a stream that begins within a week: what was counted until then is none of it."""
    return {_WEEK: counts}


def fold_weeks(
    state: StreamState, pairs: Counted, *, started_us: int, now_us: int, horizon_days: float
) -> StreamState:
    """Take in what the counters have gained; the `limit` of `pairs` is the margin above the reference.

    Raises ValueError where they have lost, or make no sense.
    """
    if not gain(state.seen.get(ONE), pairs.counts)[0]:
        return state
    week = (now_us - started_us) // _WEEK_US
    if week > (state.at_us - started_us) // _WEEK_US:
        state = _turned(state, begins_us=started_us + week * _WEEK_US, horizon_days=horizon_days)
    limit = limit_of(state, margin=pairs.limit)
    if limit is None:
        return replace(state, at_us=max(now_us, state.at_us), seen={ONE: pairs.counts})
    n, bad = pairs.counts
    held = Tally(n, bad, limit)
    return fold_totals(state, {ONE: held}, now_us=now_us, horizon_days=horizon_days)


def limit_of(state: StreamState, *, margin: float) -> float | None:
    """What this week's disagreement share is held against, or None without a reference."""
    if _REFERENCE not in state.marks:
        return None
    n, bad = state.marks[_REFERENCE]
    return min(bad / n + margin, _HIGHEST)


def this_week(state: StreamState) -> Counts:
    """(pairs, disagreements) since the week began."""
    return gain(state.marks.get(_WEEK), state.seen.get(ONE, (0, 0)))


def _turned(state: StreamState, *, begins_us: int, horizon_days: float) -> StreamState:
    """At the beginning of another week."""
    past = this_week(state)
    marks = {**state.marks, _WEEK: state.seen.get(ONE, (0, 0))}
    if past[0] >= PAIRS_AT_LEAST:
        marks[_REFERENCE] = past
    streams = {ONE: start(min(1.0, _DAYS / horizon_days))} if _REFERENCE in marks else {}
    return replace(
        state, at_us=max(begins_us, state.at_us), streams=streams, marks=marks, alarm=None, warned=False
    )
