"""What has a guardrail's stream of observations seen, and how does it take in what is new?

Counters come as totals of the epoch: what is new since the last time is one batch. Labels that are known
late come in decision order, an open one counting as good until it is judged: the evidence grows with every
bad label, so the provisional value never exceeds the final one. The stream is kept where the oldest open
label begins and the tail behind it is replayed at each look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import sub
from typing import Protocol

from app.domain.sequential import Stream, e_value, gap, start, step, weighted_step

Counts = tuple[int, ...]  # n, and how many of the n were which: parts that do not overlap

ONE = "all"  # the name of a guardrail's only stream

_SETTLING_US = 60_000_000  # a decision this young may still be overtaken by an older one's label


class Counted(Protocol):
    """What one stream has counted so far in the epoch, and how it takes in what is new."""

    @property
    def limit(self) -> float: ...

    @property
    def counts(self) -> Counts: ...

    def grown(self, stream: Stream, gained: Counts, *, gap: float) -> Stream: ...


@dataclass(frozen=True, slots=True)
class Tally:
    """`bad` of `n` so far in the epoch, against one limit."""

    n: int
    bad: int
    limit: float

    @property
    def counts(self) -> Counts:
        return self.n, self.bad

    def grown(self, stream: Stream, gained: Counts, *, gap: float) -> Stream:
        n, bad = gained
        return step(stream, n=n, bad=bad, limit=self.limit, gap=gap)


@dataclass(frozen=True, slots=True)
class Label:
    """One drawn decision. `bad` is None while it is unjudged; closed without a verdict it counts as good."""

    decision_id: str
    at_us: int
    bad: bool | None
    inclusion_probability: float
    closed_unjudged: bool = False

    @property
    def is_open(self) -> bool:
        return self.bad is None and not self.closed_unjudged


@dataclass(frozen=True, slots=True)
class StreamState:
    """One guardrail's streams in one epoch, by name. `seen` is what they have folded in.

    `at_us` is when that last grew, or the streams began. `watermark` is the last decision whose label is
    folded in for good; `alarm` the evidence that raised the alarm, latched until the epoch or the limits
    change. `marks` are counts to compare with (domain/drift.py), `streak` the looks in a row at which a
    query lay above its limit, `warned` whether a warning was announced.
    """

    epoch: int
    limits_hash: str
    at_us: int
    streams: Mapping[str, Stream] = field(default_factory=dict)
    seen: Mapping[str, Counts] = field(default_factory=dict)
    watermark: str | None = None
    alarm: float | None = None
    marks: Mapping[str, Counts] = field(default_factory=dict)
    streak: int = 0
    warned: bool = False

    @property
    def e_value(self) -> float:
        """The mean over the streams, each of which is evidence by itself."""
        values = [e_value(stream) for stream in self.streams.values()] or [e_value(start())]
        return sum(values) / len(values)


@dataclass(frozen=True, slots=True)
class Replay:
    """A stream after a look at its labels: all but `state` include the tail that is not settled yet."""

    state: StreamState
    e_value: float
    peak: float
    judged: int
    pending: int
    newest_us: int  # when the newest of them was decided


def fold_totals(
    state: StreamState, tallies: Mapping[str, Counted], *, now_us: int, horizon_days: float
) -> StreamState:
    """Take in what the counters have gained. Raises ValueError where they have lost, or make no sense."""
    gained = {name: gain(state.seen.get(name), tally.counts) for name, tally in tallies.items()}
    if not any(counts[0] for counts in gained.values()):
        return state
    due = gap((now_us - state.at_us) / 1e6, horizon_days)
    streams = {
        name: tally.grown(state.streams.get(name, start()), gained[name], gap=due)
        for name, tally in tallies.items()
    }
    return replace(state, at_us=max(now_us, state.at_us), streams=streams, seen=seen_of(tallies))


def fold_labels(
    state: StreamState,
    labels: Sequence[Label],
    *,
    limit: float,
    smallest_inclusion: float,
    now_us: int,
    horizon_days: float,
) -> Replay:
    """Take in the labels behind the watermark, given in decision order; those before it are left alone."""
    stream, at_us = state.streams.get(ONE, start()), state.at_us
    n, bad = state.seen.get(ONE, (0, 0))
    kept, pending, peak, settled = None, 0, 0.0, True
    for label in labels:
        if state.watermark is not None and label.decision_id <= state.watermark:
            continue
        stream = weighted_step(
            stream,
            bad=bool(label.bad),
            weight=smallest_inclusion / label.inclusion_probability,
            limit=limit,
            gap=gap((label.at_us - at_us) / 1e6, horizon_days),
        )
        at_us = max(label.at_us, at_us)
        n, bad = n + (label.bad is not None), bad + bool(label.bad)
        peak = max(peak, e_value(stream))
        pending += label.is_open
        settled = settled and not label.is_open and label.at_us <= now_us - _SETTLING_US
        kept = (stream, at_us, n, bad, label.decision_id) if settled else kept
    return Replay(_kept(state, kept), e_value(stream), peak, n, pending, at_us)


def seen_of(tallies: Mapping[str, Counted]) -> dict[str, Counts]:
    return {name: tally.counts for name, tally in tallies.items()}


def gain(seen: Counts | None, counts: Counts) -> Counts:
    """What counters have gained since they were last seen, None for never.

    Raises ValueError where they have lost, or where the parts are more than the whole.
    """
    gained = counts if seen is None else tuple(map(sub, counts, seen))
    if min(gained) < 0 or sum(gained) > 2 * gained[0]:
        raise ValueError(f"the counters went from {_told(seen or (0, 0))} to {_told(counts)}")
    return gained


def _told(counts: Counts) -> str:
    n, *parts = counts
    return f"{' and '.join(map(str, parts))} of {n}"


def _kept(state: StreamState, at: tuple[Stream, int, int, int, str] | None) -> StreamState:
    if at is None:
        return state
    stream, at_us, n, bad, decision_id = at
    return replace(state, at_us=at_us, streams={ONE: stream}, seen={ONE: (n, bad)}, watermark=decision_id)
