"""What does a person read of a promotion that is not ready, and can they rely on it?"""

from pathlib import Path
from typing import Any

import pytest

from app.domain.phase import Phase
from app.errors import GateNotMet
from app.store.counters import compact
from app.store.database import Database
from tests.services.plane import ROLLOUTS, Stage, opened
from tests.services.test_levers import promote, with_evidence


def condition(stage: Stage, name: str, *, of: str = "read", to: Phase = Phase.ADVISORY) -> dict[str, Any]:
    gate = stage.services.rollouts.gate(of, to)
    return next(dict(one) for one in gate["conditions"] if one["name"] == name)


async def test_what_is_missing_is_estimated_at_the_traffic_of_the_last_day(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    await with_evidence(stage, n=2)
    await stage.judge_all("allow")
    stage.clock.passes(hours=12)
    missing = condition(stage, "reviewed", to=Phase.ENFORCED)
    assert missing["sentence"] == "2 drawn reviews judged, needs 5: 3 more reviewed decisions, about 18 hours"
    assert missing["eta"] == pytest.approx(18 * 3_600)
    stage.clock.passes(hours=24)
    quiet = condition(stage, "reviewed", to=Phase.ENFORCED)
    assert (quiet["needed"], quiet["eta"]) == (3, None)
    assert quiet["sentence"].endswith("3 more reviewed decisions, but none came in the last 24 h")


async def test_stale_evidence_promotes_nobody_until_there_is_news(any_stage: Stage) -> None:
    await with_evidence(any_stage)
    any_stage.clock.passes(days=3, minutes=1)
    with pytest.raises(GateNotMet, match="evidence is stale since 2027-01-15 09:00") as refusal:
        await promote(any_stage, "read", Phase.ADVISORY)
    assert refusal.value.gate["outcome"] == "insufficient"
    await any_stage.decide(actor="somebody")
    await any_stage.observed(n=13)
    await promote(any_stage, "read", Phase.ADVISORY)


async def test_compaction_makes_evidence_older_and_never_fresher(stage: Stage) -> None:
    await with_evidence(stage)
    stage.clock.passes(days=2, hours=23)
    before = condition(stage, "freshness")
    now_us = stage.services.now_us()
    await stage.ledger.run(lambda tx: compact(tx, now_us))
    after = condition(stage, "freshness")
    assert before["outcome"] == "pass"
    assert after["value"] >= before["value"]


async def test_one_actor_alone_is_not_enough_however_much_they_ask(
    sqlite_database: Database, tmp_path: Path
) -> None:
    wary = ROLLOUTS.replace("actors_at_least: 0", "actors_at_least: 3")
    async with opened(sqlite_database, tmp_path, rollouts=wary) as stage:
        for number in range(12):
            await stage.decide(actor=("alice", "bob")[number % 2])
        await stage.observed(n=12)
        few = condition(stage, "actors")
        assert (few["outcome"], few["value"], few["needed"]) == ("insufficient", 2, 1)
        await stage.decide(actor="carol")
        await stage.observed(n=13)
        assert condition(stage, "actors")["outcome"] == "pass"
        await promote(stage, "read", Phase.ADVISORY)
