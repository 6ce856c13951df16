"""What has a guardrail's stream of observations seen, and how does it take in what is new?

Counters come as totals of the epoch: what is new since the last time is one batch. Labels that are known
late come in decision order, an open one counting as good until it is judged: the evidence grows with every
bad label, so the provisional value never exceeds the final one. The stream is kept where the oldest open
label begins and the tail behind it is replayed at each look.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from app.domain.sequential import Stream, e_value, gap, start, step, weighted_step

ONE = "all"  # the name of a guardrail's only stream

_SETTLING_US = 60_000_000  # a decision this young may still be overtaken by an older one's label


@dataclass(frozen=True, slots=True)
class Tally:
    """`bad` of `n` so far in the epoch, against one limit."""

    n: int
    bad: int
    limit: float


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
    """One guardrail's streams in one epoch, by name. `seen` is what they have folded in: (n, bad).

    `watermark` is the last decision whose label is folded in for good; `alarm` the evidence that raised
    the alarm, latched until the epoch or the limits change.
    """

    epoch: int
    limits_hash: str
    at_us: int
    streams: Mapping[str, Stream] = field(default_factory=dict)
    seen: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    watermark: str | None = None
    alarm: float | None = None

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


def fold_totals(
    state: StreamState, tallies: Mapping[str, Tally], *, now_us: int, horizon_days: float
) -> StreamState:
    """Take in what the counters have gained. Raises ValueError where they have lost, or make no sense."""
    gained = {name: _gain(state.seen.get(name, (0, 0)), tally) for name, tally in tallies.items()}
    if not any(n for n, _ in gained.values()):
        return state
    due = gap((now_us - state.at_us) / 1e6, horizon_days)
    streams = {
        name: step(
            state.streams.get(name, start()),
            n=gained[name][0],
            bad=gained[name][1],
            limit=tally.limit,
            gap=due,
        )
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
    kept = current = state
    pending = 0
    peak = 0.0
    settled = True
    for label in labels:
        if state.watermark is not None and label.decision_id <= state.watermark:
            continue
        current = _labelled(
            current, label, limit=limit, smallest=smallest_inclusion, horizon_days=horizon_days
        )
        peak = max(peak, current.e_value)
        pending += label.is_open
        settled = settled and not label.is_open and label.at_us <= now_us - _SETTLING_US
        kept = current if settled else kept
    return Replay(kept, current.e_value, peak, current.seen.get(ONE, (0, 0))[0], pending)


def seen_of(tallies: Mapping[str, Tally]) -> dict[str, tuple[int, int]]:
    return {name: (tally.n, tally.bad) for name, tally in tallies.items()}


def to_json(state: StreamState) -> str:
    return json.dumps(asdict(state), separators=(",", ":"))


def from_json(text: str) -> StreamState:
    raw = json.loads(text)
    raw["streams"] = {name: tuple(values) for name, values in raw["streams"].items()}
    raw["seen"] = {name: (n, bad) for name, (n, bad) in raw["seen"].items()}
    return StreamState(**raw)


def _gain(seen: tuple[int, int], tally: Tally) -> tuple[int, int]:
    n, bad = tally.n - seen[0], tally.bad - seen[1]
    if not 0 <= bad <= n:
        raise ValueError(f"the counters went from {seen[1]} of {seen[0]} to {tally.bad} of {tally.n}")
    return n, bad


def _labelled(
    state: StreamState, label: Label, *, limit: float, smallest: float, horizon_days: float
) -> StreamState:
    stream = weighted_step(
        state.streams.get(ONE, start()),
        bad=bool(label.bad),
        weight=smallest / label.inclusion_probability,
        limit=limit,
        gap=gap((label.at_us - state.at_us) / 1e6, horizon_days),
    )
    n, bad = state.seen.get(ONE, (0, 0))
    return replace(
        state,
        at_us=max(label.at_us, state.at_us),
        streams={ONE: stream},
        seen={ONE: (n + (label.bad is not None), bad + bool(label.bad))},
        watermark=label.decision_id,
    )
