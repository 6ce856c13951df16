"""How long does the server take for the console's pages, with 200 rollouts and a million decisions?

Run by `make bench-console`. Over an SQLite of its own with counters as 14 days leave them; every decision has
its situation and its advisory, the newest 100,000 an open review. Asked in process, rendering included.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Table

from app.domain.clock import to_us
from app.domain.decision import Decision
from app.services.desk import Choice
from app.services.verdicts import Verdict
from app.store import tables as t
from app.store.database import Database
from tests.bench.guard_pass import DAYS, Size, fill, policy_of
from tests.services.plane import Clock, Stage, opened

ROLLOUTS, DECISIONS, REVIEWS = 200, 1_000_000, 100_000
_TIMES = 15
_MS = 1_000
# Of the n-th decision, oldest first: a day of microseconds is `{gap}` decisions.
_ID = "printf('%08x-%04x-7000-8000-%012x', ({at}) / 1000 >> 16, ({at}) / 1000 & 65535, n)"
_ROLLOUT = f"'r' || (n % {ROLLOUTS - 1})"
_SAID = "CASE WHEN n % {k} = 0 THEN 'deny' WHEN n % 5 = 0 THEN 'require_attestation' ELSE 'allow' END"

# What a page may take, in ms of server time; None: no goal is set.
GOALS: dict[str, float | None] = {
    "the board": 300,
    "the queue's next card": 100,
    "the card after it, fetched ahead": 100,
    "decisions, newest first": None,
    "decisions of one actor": None,
    "decisions of one rollout that differ": None,
    "one rollout": None,
}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="phasegate-bench-") as name:
        took = asyncio.run(_measure(Path(name)))
    print(f"{'ms of server time':38} {'median':>8} {'slowest':>8} {'at most':>8}")
    for what, goal in GOALS.items():
        limit = "" if goal is None else f"{goal:g}"
        print(f"{what:38} {statistics.median(took[what]):8.1f} {max(took[what]):8.1f} {limit:>8}")
    met = all(goal is None or statistics.median(took[what]) < goal for what, goal in GOALS.items())
    print("all below their limits" if met else "SOME ABOVE THEIR LIMIT", file=sys.stderr)
    return 0 if met else 1


async def _measure(directory: Path) -> dict[str, list[float]]:
    database, clock = Database(f"sqlite:///{directory / 'plane.db'}"), Clock()
    try:
        database.migrate()
        async with opened(database, directory, rollouts=policy_of(ROLLOUTS), clock=clock) as stage:
            fill(stage, Size(ROLLOUTS, DECISIONS // ROLLOUTS, 1))
            await _multiply(stage)
            stage.services.plane.refresh()
            await stage.looks()
            pages = {
                "the board": "/",
                "decisions, newest first": "/decisions",
                "decisions of one actor": "/decisions?actor=actor-77",
                "decisions of one rollout that differ": "/decisions?rollout=r7&agreement=false",
                "one rollout": "/rollouts/r7",
            }
            took = {what: [await _asked(stage, path) for _ in range(_TIMES)] for what, path in pages.items()}
            return took | await _cards(stage)
    finally:
        database.close()


async def _cards(stage: Stage) -> dict[str, list[float]]:
    """A reviewer takes one card after the other and judges it."""
    taken, ahead = [], []
    reviewer = stage.principal("reviewer")
    for _ in range(_TIMES):
        taken.append(await _asked(stage, "/reviews/take", data={"review": ""}))
        [held] = stage.services.desk.hand(Choice(), reviewer)
        ahead.append(await _asked(stage, f"/reviews/next?after={held}"))
        await stage.services.reviews.judge(held, Verdict(Decision.ALLOW), reviewer)
    return {"the queue's next card": taken, "the card after it, fetched ahead": ahead}


async def _asked(stage: Stage, path: str, *, data: Mapping[str, str] | None = None) -> float:
    """The ms that one request takes."""
    who = "reviewer" if path.startswith("/reviews") else "operator"
    started = time.perf_counter()
    response = await stage.call("GET" if data is None else "POST", path, who=who, data=data)
    took = time.perf_counter() - started
    assert response.status_code == 200, response.text
    return took * _MS


async def _multiply(stage: Stage) -> None:
    """Make one real decision a million: each with its own id, time, rollout, actor and answers."""
    made = await stage.decide("other")
    await stage.until(lambda: stage.rows(t.advisories))
    now_us = to_us(stage.clock.now())
    at = f"{now_us} - ({DECISIONS} - n) * {DAYS * 86_400_000_000 // DECISIONS}"
    every = {"id": _ID.format(at=at), "decision_id": _ID.format(at=at), "created_us": at, "rollout": _ROLLOUT}
    every |= {"epoch": "1", "actor_id": "'actor-' || (n % 1000)", "legacy_decision": _SAID.format(k=7)}
    said = {"decision": _SAID.format(k=11), "agrees": f"{_SAID.format(k=7)} = {_SAID.format(k=11)}"}
    for table, changed in ((t.decisions, every), (t.situations, every), (t.advisories, every | said)):
        _copy(stage, table, changed, of=made["id"])
    reviews = dict.fromkeys(t.reviews.columns.keys(), "NULL") | every
    reviews |= {"version": "'fake-1'", "kind": "'drawn'", "status": "'open'", "inclusion_probability": "0.5"}
    reviews |= {"mode": "CASE n % 3 WHEN 0 THEN 'assisted' ELSE 'blind' END", "priority": "10"}
    reviews |= {"model_decision": "'allow'", "due_us": f"{now_us + 7 * 86_400_000_000}"}
    _copy(stage, t.reviews, reviews, of=made["id"], since=DECISIONS - REVIEWS)


def _copy(stage: Stage, table: Table, changed: Mapping[str, Any], *, of: str, since: int = 0) -> None:
    """Rows of a table like those of one decision, but for the columns that are `changed` by SQL of `n`."""
    source = t.decisions if table is t.reviews else table
    key = "id" if "answered_by" in source.columns else "decision_id"
    names = list(table.columns.keys())
    chosen = ", ".join(str(changed.get(name, f"source.{name}")) for name in names)
    with stage.database.write() as connection:
        connection.exec_driver_sql(
            f"WITH RECURSIVE k(n) AS (SELECT {since} UNION ALL SELECT n + 1 FROM k WHERE n < {DECISIONS - 1})"
            f" INSERT INTO {table.name} ({', '.join(names)}) SELECT {chosen}"
            f" FROM {source.name} AS source, k WHERE source.{key} = ?",
            (of,),
        )


if __name__ == "__main__":
    sys.exit(main())
