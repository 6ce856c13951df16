"""How long does a person wait to see what a promotion still needs, after ten million decisions?

Run by `make bench-gate`. The plane is the shipped one on an SQLite of its own, with its counters as
compaction leaves them.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from app.domain.clock import to_us
from app.domain.counters import Metric
from app.domain.decision import Decision
from app.domain.phase import Phase
from app.store import tables as t
from app.store.database import Database
from app.store.ids import new_id
from app.store.transaction import CounterKey, transaction
from tests.services.plane import SHIPPED, VERSION, Clock, Stage, opened

DECISIONS = 10_000_000
_DAYS, _PAST_EPOCHS = 14, 5
_REVIEWS, _TRANSITIONS = 100_000, 10_000
_CALLS = 300  # of each way
_GOAL_MS = 20.0
_MINUTES_A_DAY = 24 * 60
_US_A_DAY = 86_400_000_000

# Where each rollout stands; the others are in shadow, as they begin.
_ENFORCED, _ADVISORY = ("read", "write", "commit"), ("deploy-nonproduction",)

_PAIRS = {f"{one}>{other}": 0.95 / 3 if one is other else 0.05 / 6 for one in Decision for other in Decision}
# What share of a rollout's decisions each counter holds.
_SHARES: dict[Metric, dict[str, float]] = {
    Metric.DECISION: dict.fromkeys(Decision, 1 / 3),
    Metric.ANSWERED: {"legacy": 0.1, "model": 0.9},
    Metric.ENFORCED: {"all": 1.0},
    Metric.FALLBACK: dict.fromkeys(("timeout", "malformed", "unsure", "unavailable", "overloaded"), 0.004),
    Metric.OBSERVATION: {"ok": 0.9, "unsure": 0.05, "timeout": 0.001, "malformed": 0.001, "not_observed": 0.048},
    Metric.PAIR: _PAIRS,
    Metric.MODEL: dict.fromkeys(Decision, 0.3),
    Metric.LATENCY: {str(bucket): 1 / 60 for bucket in range(-70, -10)},
    Metric.DRAWN: {"agreement:0": 0.001, "agreement:2": 0.002, "disagreement:0": 0.002, "disagreement:1": 0.001},
    Metric.REVIEWED: {"agreement:0": 9.5e-4, "agreement:2": 19e-4, "disagreement:0": 19e-4, "disagreement:1": 9.5e-4},
    Metric.OVERRIDDEN: {"agreement:0": 1e-5, "agreement:2": 2e-5, "disagreement:0": 1e-4, "disagreement:1": 5e-5},
    Metric.REVIEWED_ALLOW: {"all": 0.002},
    Metric.ACTORS: {"all": 7e-5},
    Metric.SELF: {"same": 0.01, "other": 1e-5},
    Metric.DOUBLE: {pair: share / 1_000 for pair, share in _PAIRS.items()},
}  # fmt: skip


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="phasegate-bench-") as name:
        figures = asyncio.run(_measure(Path(name)))
    print(json.dumps(figures, indent=1))
    met = all(way["p99_ms"] < _GOAL_MS for way in figures.values())
    print(f"p99 below {_GOAL_MS:g} ms: {'yes' if met else 'NO'}", file=sys.stderr)
    return 0 if met else 1


async def _measure(directory: Path) -> dict[str, dict[str, float]]:
    database, clock = Database(f"sqlite:///{directory / 'plane.db'}"), Clock()
    database.migrate()
    rollouts = (SHIPPED / "rollouts.yaml").read_text(encoding="utf-8")
    legacy = (SHIPPED / "legacy.yaml").read_text(encoding="utf-8")
    async with AsyncExitStack() as stack:
        stack.callback(database.close)
        opening = opened(database, directory, rollouts=rollouts, legacy=legacy, clock=clock)
        stage = await stack.enter_async_context(opening)
        for name in (*_ENFORCED, *_ADVISORY):
            await stage.enter(name, Phase.ENFORCED if name in _ENFORCED else Phase.ADVISORY)
        clock.passes(days=_DAYS)
        _fill(stage)
        names = stage.services.plane.view.policy.book.names
        service = [_timed(partial(stage.services.rollouts.gate, name, None)) for name in _each(names)]
        over_http = [await _asked(stage, name) for name in _each(names)]
    return {"service": _summary(service), "http": _summary(over_http)}


def _fill(stage: Stage) -> None:
    names = stage.services.plane.view.policy.book.names
    now_us = to_us(stage.clock.now())
    for name in names:
        with transaction(stage.database, "test", now_us=now_us) as tx:
            state = stage.state(name)
            for epoch in range(max(state.epoch - _PAST_EPOCHS, 0), state.epoch + 1):
                for minute, share in _buckets(now_us):
                    for metric, label, n in _counts(DECISIONS / len(names) * share):
                        tx.count(CounterKey(name, VERSION, epoch, minute, metric, label), n)
            tx.insert_many(t.reviews, _reviews(name, _REVIEWS // len(names), now_us))
            tx.insert_many(t.transitions, _transitions(name, _TRANSITIONS // len(names), now_us))


def _buckets(now_us: int) -> Iterator[tuple[int, float]]:
    """Days, hours and minutes that are left after compaction, and the share of the epoch in each."""
    now, began = now_us // 60_000_000, now_us // 60_000_000 - _DAYS * _MINUTES_A_DAY
    minute = began
    while minute < now:
        age = now - minute
        step = _MINUTES_A_DAY if age > 2 * _MINUTES_A_DAY else 60 if age > 120 else 1
        yield minute, step / (now - began)
        minute += step


def _counts(decisions: float) -> Iterator[tuple[str, str, int]]:
    for metric, labels in _SHARES.items():
        for label, share in labels.items():
            if n := round(decisions * share):
                yield metric.value, str(label), n
    yield Metric.SERVED_S.value, "all", 60


def _reviews(rollout: str, n: int, now_us: int) -> Iterator[dict[str, Any]]:
    for _ in range(n):
        yield {
            "id": new_id(),
            "decision_id": new_id(),
            "created_us": now_us,
            "rollout": rollout,
            "epoch": 1,
            "version": VERSION,
            "kind": "drawn",
            "status": "judged",
            "mode": "blind",
            "inclusion_probability": 0.05,
            "priority": 10,
            "model_decision": "allow",
            "due_us": now_us + 7 * _US_A_DAY,
            "judged_us": now_us,
            "verdict": "allow",
        }


def _transitions(rollout: str, n: int, now_us: int) -> Iterator[dict[str, Any]]:
    for revision in range(n):
        yield {
            "id": new_id(),
            "created_us": now_us,
            "rollout": rollout,
            "kind": "exposure",
            "from_state": "{}",
            "to_state": "{}",
            "actor": "bench",
            "automatic": False,
            "reason": "a long history",
            "revision": revision,
        }


def _each(names: Iterable[str]) -> Iterator[str]:
    """Every rollout in turn, after one round that is not counted."""
    known = tuple(names)
    for number in range(_CALLS):
        yield known[number % len(known)]


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1_000


async def _asked(stage: Stage, name: str) -> float:
    began = time.perf_counter()
    response = await stage.call("GET", f"/v1/rollouts/{name}/gate")
    took_ms = (time.perf_counter() - began) * 1_000
    response.raise_for_status()
    return took_ms


def _summary(samples: list[float]) -> dict[str, float]:
    in_order = sorted(samples)
    return {f"p{share}_ms": round(in_order[len(in_order) * share // 100], 2) for share in (50, 99)}


if __name__ == "__main__":
    sys.exit(main())
