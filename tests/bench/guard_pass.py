"""What does a guardrail pass cost, for many rollouts and for many decisions?

Over an SQLite file of its own with counters as 14 days leave them: minutes of the last two hours, hours of
two days, days before. Reviews are as many as people can judge, whatever the traffic, with a week of them
open. "All new" is a pass in which every rollout has decisions since the last one; in "nothing new" none has.
The numbers of a row do not hang on its count, so 10,000,000 decisions differ from 10,000 in how many
minutes and labels have any.
"""

import asyncio
import gc
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from app.domain.clock import to_us
from app.store.database import Database
from app.store.transaction import CounterKey, Transaction
from tests.services.plane import ROLLOUTS, Clock, Stage, opened

DAYS = 14
GOAL_S, GOAL_RATIO = 1.0, 1.2
_PASSES = {True: 9, False: 60}  # of many rollouts, of few
_MINUTES = [*range(120), *range(120, 2 * 1440, 60), *range(2 * 1440, DAYS * 1440, 1440)]  # ago
_LATENCIES = (2, 5, 12, 27, 55, 95, 140, 160, 150, 120, 90, 65, 40, 22, 12, 5)  # by bucket
_WEIGHTS = {  # of 1,000 decisions of an enforced rollout
    **{("decision", label): n for label, n in (("allow", 640), ("deny", 140), ("require_attestation", 220))},
    **{("model", label): n for label, n in (("allow", 650), ("deny", 140), ("require_attestation", 205))},
    ("answered", "model"): 960,
    ("answered", "legacy"): 40,
    ("enforced", "all"): 1000,
    ("fallback", "timeout"): 3,
    ("fallback", "unsure"): 7,
    ("observation", "ok"): 995,
    ("observation", "timeout"): 3,
    ("observation", "malformed"): 2,
    **{
        ("pair", f"{one}>{one}"): n
        for one, n in (("allow", 620), ("deny", 120), ("require_attestation", 190))
    },
    ("pair", "allow>deny"): 15,
    ("pair", "deny>allow"): 10,
    ("pair", "require_attestation>allow"): 20,
    ("pair", "allow>require_attestation"): 20,
    **{("latency", str(bucket)): n for bucket, n in zip(range(-36, -20), _LATENCIES, strict=True)},
    ("self", "same"): 10,
    ("actors", "all"): 40,
}
_REVIEWED = {"drawn": 280, "reviewed": 130, "overridden": 3}
_BASELINE = {label: n for (metric, label), n in _WEIGHTS.items() if metric in ("model", "pair")}


@dataclass(frozen=True)
class Size:
    """So many rollouts, and of each so many decisions and drawn reviews in 14 days."""

    rollouts: int
    decisions: int
    reviews: int

    def __str__(self) -> str:
        return f"{self.rollouts} rollouts, {self.rollouts * self.decisions:,} decisions"


MANY = Size(1_000, 10_000, 20)
SMALL, LARGE = Size(7, 10_000 // 7, 280), Size(7, 10_000_000 // 7, 280)


@dataclass(frozen=True)
class Cost:
    """Of a pass, in ms: the median where nothing and where everything is new, and how long a commit waits."""

    nothing_new: float
    all_new: float
    waits: float


async def measure(size: Size) -> Cost:
    with tempfile.TemporaryDirectory(prefix="phasegate-bench-") as name:
        database = Database(f"sqlite:///{name}/phasegate.db")
        try:
            database.migrate()
            clock = Clock()
            async with opened(database, Path(name), rollouts=policy_of(size.rollouts), clock=clock) as stage:
                fill(stage, size)
                stage.services.plane.refresh()
                await _pass_ms(stage)
                gc.collect()  # and seldom from here on, as the server does (app/main.py)
                gc.freeze()
                gc.set_threshold(20_000)
                return await _cost(stage, _PASSES[size.rollouts > SMALL.rollouts])
        finally:
            database.close()


async def _cost(stage: Stage, passes: int) -> Cost:
    quiet, busy, waits = [], [], []
    for _ in range(passes):
        quiet.append(await _pass_ms(stage))
        await stage.ledger.run(lambda tx: _decided(tx, stage, n=1))
        busy.append(await _pass_ms(stage))
    for _ in range(passes):
        await stage.ledger.run(lambda tx: _decided(tx, stage, n=1))
        waits.append(await _longest_wait_ms(stage))
    return Cost(statistics.median(quiet), statistics.median(busy), statistics.median(waits))


async def _pass_ms(stage: Stage) -> float:
    stage.clock.passes(seconds=5)
    started = time.perf_counter()
    await stage.services.guard.look()
    return (time.perf_counter() - started) * 1000


async def _longest_wait_ms(stage: Stage) -> float:
    """What the slowest of the commits that go on beside a pass took."""
    passing = asyncio.create_task(_pass_ms(stage))
    longest = 0.0
    while not passing.done():
        started = time.perf_counter()
        await stage.ledger.run(lambda tx: tx.count(_key(stage, "busy", "other", "all")))
        longest = max(longest, time.perf_counter() - started)
    await passing
    return longest * 1000


def _decided(tx: Transaction, stage: Stage, *, n: int) -> None:
    for policy in stage.services.plane.view.policy.book.policies:
        for metric, label in (("decision", "allow"), ("observation", "ok"), ("model", "allow")):
            tx.count(_key(stage, policy.name, metric, label), n)
        for metric, label in (("pair", "allow>allow"), ("latency", "-30"), ("enforced", "all")):
            tx.count(_key(stage, policy.name, metric, label), n)


def _key(stage: Stage, name: str, metric: str, label: str) -> CounterKey:
    state = stage.services.plane.view.states.get(name)
    epoch = 1 if state is None else state.epoch
    minute = to_us(stage.clock.now()) // 60_000_000
    return CounterKey(name, stage.model.version_id, epoch, minute, metric, label)


def policy_of(n: int) -> str:
    """`n` rollouts, the last of which takes what is left."""
    head = ROLLOUTS[: ROLLOUTS.index("rollouts:")].replace("review_rate: 0", "review_rate: 0.05")
    each = "".join(
        f"  r{k}: {{actions: [a{k}], risk: low, ceiling: enforced, "
        "gates: {advisory: {agreement_above: 0.9}, enforced: {override_below: 0.1}}}\n"
        for k in range(n - 1)
    )
    return f'{head}rollouts:\n{each}  other: {{actions: ["*"], risk: high, ceiling: enforced}}\n'


def fill(stage: Stage, size: Size) -> None:
    now_us = to_us(stage.clock.now())
    since_us = to_us(stage.clock.now() - timedelta(days=DAYS))
    names = [policy.name for policy in stage.services.plane.view.policy.book.policies]
    version = stage.model.version_id
    with stage.database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE rollouts SET phase = 'enforced', epoch_started_us = ?, baseline = ?",
            (since_us, json.dumps(_BASELINE)),
        )
        connection.exec_driver_sql("UPDATE plane SET revision = revision + 1")
        for name in names:
            rows = list(_counters(size, now_us // 60_000_000))
            connection.exec_driver_sql(
                "INSERT INTO evidence_counters VALUES ('one', ?, ?, 1, ?, ?, ?, ?)",
                [(name, version, *row) for row in rows],
            )
            connection.exec_driver_sql(
                "INSERT INTO evidence_totals (instance, rollout, version, epoch, metric, label, n)"
                " SELECT instance, rollout, version, epoch, metric, label, SUM(n) FROM evidence_counters"
                " WHERE rollout = ? GROUP BY rollout, version, epoch, metric, label",
                (name,),
            )
            connection.exec_driver_sql(
                "INSERT INTO reviews (id, decision_id, created_us, rollout, epoch, version, kind, status, mode,"
                " inclusion_probability, priority, model_decision, due_us, verdict)"
                " VALUES (?, ?, ?, ?, 1, ?, 'drawn', ?, 'blind', 0.5, 10, 'allow', ?, ?)",
                list(_reviews(size, name, version, since_us=since_us, now_us=now_us)),
            )


def _counters(size: Size, now: int) -> Iterator[tuple[int, str, str, int]]:
    """(minute, metric, label, n) as compaction leaves them; what is too rare for a span is not in it."""
    for ago in _MINUTES:
        span = 1 if ago < 120 else 60 if ago < 2 * 1440 else 1440
        share = size.decisions * span / (DAYS * 1440)
        for number, ((metric, label), weight) in enumerate(_WEIGHTS.items()):
            expected = share * weight / 1000
            n = math.floor(expected + ((ago * 7919 + number * 104_729) % 1000) / 1000)
            if n:
                yield now - ago, metric, label, n
    for metric, weight in _REVIEWED.items():
        yield now - 1440, metric, "agreement:2", size.reviews * weight // 280


def _reviews(
    size: Size, name: str, version: str, *, since_us: int, now_us: int
) -> Iterator[tuple[str | int | None, ...]]:
    """Drawn all the time; of the last week's only every second one is judged by now."""
    for number in range(size.reviews):
        at_us = since_us + (now_us - since_us) * number // size.reviews
        is_open = number % 2 == 1 and number >= size.reviews // 2
        status, verdict = ("open", None) if is_open else ("judged", "allow")
        of = f"{name}-{number:08}"
        yield of, of, at_us, name, version, status, at_us + 7 * 86_400_000_000, verdict


def main() -> int:
    many, small, large = (asyncio.run(measure(size)) for size in (MANY, SMALL, LARGE))
    print(f"{'':36} {'nothing new':>12} {'all new':>9} {'a commit waits':>15}   (medians, ms)")
    for size, cost in ((MANY, many), (SMALL, small), (LARGE, large)):
        print(f"{size!s:36} {cost.nothing_new:12.1f} {cost.all_new:9.1f} {cost.waits:15.1f}")
    ratio = large.all_new / small.all_new
    print(f"\n{MANY.rollouts} rollouts, all new: {many.all_new / 1000:.3f} s (at most {GOAL_S} s)")
    print(f"{LARGE.rollouts * LARGE.decisions:,} decisions over 10,000: {ratio:.2f} (at most {GOAL_RATIO})")
    return 0 if many.all_new / 1000 < GOAL_S and ratio <= GOAL_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
