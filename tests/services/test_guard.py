"""Does a rollout that turns bad come back by itself, and only then?"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.domain.assessment import Facts
from app.domain.clock import to_us
from app.domain.limits import Guardrail
from app.domain.phase import Phase
from app.errors import GateNotMet
from app.services.judging import Judged, Judging
from app.store import tables as t
from app.store.database import Database
from app.store.transaction import CounterKey, Transaction
from tests.services.plane import ROLLOUTS, FakeModel, Stage, opened
from tests.services.test_levers import promote, with_evidence


def assessment(stage: Stage, name: str, guardrail: str) -> dict[str, Any]:
    return next(one for one in stage.services.guard.assessments(name) if one["name"] == guardrail)


async def decides(stage: Stage, name: str, *, n: int, **said: Any) -> None:
    for number in range(n):
        await stage.decide(name, actor=f"actor-{number}", **said)


async def test_errors_that_rise_roll_back_by_themselves(any_stage: Stage) -> None:
    await any_stage.enter("read", Phase.ENFORCED)
    await decides(any_stage, "read", n=10)
    assert await any_stage.looks() == []
    await decides(any_stage, "read", n=5, model="malformed")
    (transition,) = await any_stage.looks()
    assert (transition["kind"], transition["automatic"]) == ("rollback", True)
    assert transition["reason"].startswith("guardrail error: error rate 33.3 % of 15")
    assert transition["evidence"]["guardrail"]["outcome"] == "breach"
    state = any_stage.state("read")
    assert state.phase is Phase.ADVISORY
    assert state.investigation is not None
    document = await any_stage.decide(legacy="deny")
    assert (document["answered_by"], document["decision"]) == ("legacy", "deny")


async def test_a_rollback_keeps_the_numbers_that_it_rested_on(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await decides(stage, "read", n=8, model="malformed")
    (transition,) = await stage.looks()
    evidence = transition["evidence"]["evidence"]
    assert (evidence["errors"]["n"], evidence["errors"]["bad"], evidence["errors"]["rate"]) == (8, 8, 1.0)
    assert (evidence["version"], evidence["decisions"]) == (stage.model.version_id, 8)
    assert "soak_days" not in evidence


ACTING = """guardrails: {actions: {error: ACTION}, dry_run: [DRY]}
    review_rate: 1"""


@pytest.mark.parametrize(
    ("action", "dry_run", "kinds", "outcome"),
    [
        ("rollback", "shift", ["rollback"], "insufficient"),
        ("hold", "shift", ["hold"], "breach"),
        ("notify", "shift", [], "breach"),
        ("rollback", "error", [], "dry_run"),
        ("hold", "error", [], "dry_run"),
    ],
)
async def test_a_breach_does_what_the_policy_says_and_nothing_in_a_dry_run(
    sqlite_database: Database, tmp_path: Path, action: str, dry_run: str, kinds: list[str], outcome: str
) -> None:
    acting = ACTING.replace("ACTION", action).replace("DRY", dry_run)
    rollouts = ROLLOUTS.replace("review_rate: 1\n", f"{acting}\n", 1)
    async with opened(sqlite_database, tmp_path, rollouts=rollouts) as stage:
        await stage.enter("read", Phase.ADVISORY)  # where there are no fallbacks
        told = await stage.told(stage.services.notices.follow(), 1)
        await decides(stage, "read", n=8, model="malformed")
        await stage.observed(n=8)
        assert [one["kind"] for one in await stage.looks(times=3)] == kinds
        ((kind, body),) = await told
        assert (kind, body["name"], body["dry_run"]) == ("guardrail", "error", dry_run == "error")
        assert assessment(stage, "read", "error")["outcome"] == outcome


async def test_a_warning_is_announced_once_to_followers_and_webhooks(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    told = await stage.told(stage.services.notices.follow(), 1)
    hook = {
        "id": "w1",
        "created_us": 0,
        "created_by": "test",
        "url": "https://example.org/",
        "secret": "whsec_AAAA",
        "kinds": "guardrail",
    }
    await stage.ledger.run(lambda tx: tx.insert(t.webhooks, hook))
    await decides(stage, "read", n=2, model="malformed")
    assert await stage.looks(times=3, every_s=61) == []
    ((kind, body),) = await told
    assert (kind, body["rollout"], body["outcome"]) == ("guardrail", "read", "warning")
    assert body["sentence"].startswith("guardrail error: warning: error rate 100 % of 2")
    assert stage.rows(t.deliveries) == 1


class Slow(Judging):
    """A pass that is at its judging until a test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.may_go_on = threading.Event(), threading.Event()

    def judge(self, found: Iterable[Facts]) -> list[Judged]:
        self.reached.set()
        assert self.may_go_on.wait(5)
        return super().judge(found)


@contextlib.asynccontextmanager
async def during_a_pass(stage: Stage) -> AsyncIterator[list[dict[str, Any]]]:
    """The list holds the transitions of the pass when it is over."""
    slow = Slow()
    stage.services.guard._judging = slow
    made: list[dict[str, Any]] = []
    passing = asyncio.create_task(stage.services.guard.look())
    try:
        await asyncio.to_thread(slow.reached.wait, 5)
        yield made
    finally:
        slow.may_go_on.set()
        made += await passing


async def test_a_pass_keeps_no_decision_waiting(any_stage: Stage) -> None:
    await any_stage.enter("read", Phase.ENFORCED)
    async with during_a_pass(any_stage):
        document = await any_stage.decide()
    assert any_stage.rows(t.decisions) == 1
    assert document["answered_by"] == "model"


async def test_what_moved_while_a_pass_judged_is_rolled_back_all_the_same(any_stage: Stage) -> None:
    await any_stage.enter("read", Phase.ENFORCED)
    await decides(any_stage, "read", n=8, model="malformed")
    async with during_a_pass(any_stage) as made:
        await any_stage.services.levers.hold("read", reason="wait", by=any_stage.principal("operator"))
    assert [one["kind"] for one in made] == ["rollback"]
    assert any_stage.state("read").phase is Phase.ADVISORY


async def test_evidence_of_an_epoch_that_is_over_takes_nothing_back(any_stage: Stage) -> None:
    await any_stage.enter("read", Phase.ENFORCED)
    await decides(any_stage, "read", n=8, model="malformed")
    async with during_a_pass(any_stage) as made:
        await any_stage.services.levers.roll_back("read", reason="seen", by=any_stage.principal("operator"))
    assert made == []
    assert any_stage.state("read").phase is Phase.ADVISORY
    assert await any_stage.looks() == []


async def test_a_pass_that_could_not_be_written_is_made_again(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await decides(stage, "read", n=8, model="malformed")
    passes = stage.services.plane.view.guard_passes

    async def does(sql: str) -> None:
        await stage.ledger.run(lambda tx: tx.connection.exec_driver_sql(sql).close())

    refused = "BEFORE INSERT ON guardrail_streams BEGIN SELECT RAISE(ABORT, 'refused'); END"
    await does(f"CREATE TRIGGER refused {refused}")
    with pytest.raises(IntegrityError, match="refused"):
        await stage.looks()
    stage.services.plane.refresh()
    assert stage.services.plane.view.guard_passes == passes
    await does("DROP TRIGGER refused")
    assert [one["kind"] for one in await stage.looks()] == ["rollback"]


async def test_where_nothing_is_new_nothing_is_written(stage: Stage) -> None:
    await decides(stage, "read", n=3)
    await stage.observed(n=3)
    await stage.looks(every_s=60)

    def written() -> list[int]:
        with stage.database.read() as connection:
            return sorted(connection.execute(select(t.guardrail_streams.c.updated_us)).scalars())

    before = written()
    await stage.looks(times=3, every_s=20)  # within a minute, and then once for what time alone changes
    assert written() == before
    await stage.decide()
    await stage.observed(n=4)
    await stage.looks(every_s=1)
    assert written() != before


async def test_what_was_evidence_and_has_no_news_is_stale(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await decides(stage, "read", n=3)
    await stage.looks()
    stage.clock.passes(days=3)
    assert await stage.looks() == []
    assert assessment(stage, "read", "error")["outcome"] == "stale"


async def test_a_rolled_back_epoch_begins_with_clean_streams(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await decides(stage, "read", n=8, model="malformed")
    assert len(await stage.looks()) == 1
    assert await stage.looks(times=3) == []
    assert assessment(stage, "read", "error")["outcome"] == "insufficient"


async def test_overrides_that_rise_roll_back(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await decides(stage, "read", n=8)
    assert await stage.looks() == []
    assert assessment(stage, "read", "override")["pending"] == 8
    await stage.judge_all("deny")
    (transition,) = await stage.looks()
    assert transition["reason"].startswith("guardrail override")


async def test_a_verdict_is_seen_at_once_whatever_was_read_before(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await decides(stage, "read", n=8)
    await stage.looks()
    for _ in range(3):
        await stage.decide(actor="somebody else")
        assert await stage.looks(every_s=5) == []
    await stage.judge_all("deny")
    assert len(await stage.looks(every_s=5)) == 1


async def test_a_tail_longer_than_is_read_at_once_loses_no_label(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.judging._LABELS_AT_MOST", 3)
    await stage.enter("read", Phase.ENFORCED)
    await decides(stage, "read", n=8)
    first, *others = stage.queue()
    for row in reversed(others):
        await stage.judge(row["decision_id"], "allow")
    await stage.looks(every_s=61)
    assert (assessment(stage, "read", "override")["n"], assessment(stage, "read", "override")["pending"]) == (
        2,
        1,
    )
    await stage.judge(first["decision_id"], "allow")
    seen = []
    for _ in range(3):
        await stage.looks(every_s=61)
        seen.append(assessment(stage, "read", "override")["n"])
    assert seen == [3, 6, 8]


async def test_answers_that_are_late_roll_back(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    stage.model.latency_ms = 6_000
    await decides(stage, "read", n=8)
    (transition,) = await stage.looks()
    assert transition["reason"].startswith("guardrail latency")


async def baseline(stage: Stage, name: str = "read", *, n: int = 300) -> None:
    """Shadow decisions of a model and a legacy engine that both allow."""
    state, minute = await stage.enter(name, Phase.SHADOW), to_us(stage.clock.now()) // 60_000_000

    def count(tx: Transaction) -> None:
        for metric, label in (("model", "allow"), ("pair", "allow>allow")):
            tx.count(CounterKey(name, state.version, state.epoch, minute, metric, label), n)

    await stage.ledger.run(count)


async def test_a_model_that_leaves_the_legacy_engine_rolls_back(any_stage: Stage) -> None:
    await baseline(any_stage)
    await any_stage.enter("read", Phase.ENFORCED)
    await decides(any_stage, "read", n=20, model="deny")
    (transition,) = await any_stage.looks()
    assert transition["reason"].startswith(
        "guardrail paired_shift: shift against the legacy engine 100 % of 20"
    )


async def test_other_traffic_alone_is_told_and_nothing_is_rolled_back(stage: Stage) -> None:
    await baseline(stage)
    await stage.enter("read", Phase.ENFORCED)
    news = stage.services.notices.follow()
    told = await stage.told(news, 1)
    await decides(stage, "read", n=20, legacy="deny", model="deny")
    assert await stage.looks() == []
    assert assessment(stage, "read", "shift")["outcome"] == "breach"
    assert assessment(stage, "read", "paired_shift")["outcome"] == "ok"
    ((kind, body),) = await told
    assert (kind, body["name"], body["outcome"]) == ("guardrail", "shift", "breach")
    assert body["sentence"].startswith("guardrail shift: breach: shift of the distribution 100 % of 20")


@pytest.mark.parametrize(("n", "outcome"), [(299, "insufficient"), (300, "ok")])
async def test_a_baseline_is_300_pairs_of_the_last_shadow_epoch(stage: Stage, n: int, outcome: str) -> None:
    await baseline(stage, n=n)
    await stage.enter("read", Phase.ENFORCED)
    await decides(stage, "read", n=3)
    await stage.looks()
    assert assessment(stage, "read", "paired_shift")["outcome"] == outcome


async def test_fallbacks_that_rise_roll_back_on_low_risk(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await decides(stage, "read", n=8, model="oversize")
    (transition,) = await stage.looks()
    assert (transition["kind"], transition["reason"][:18]) == ("rollback", "guardrail fallback")


async def test_on_high_risk_fallbacks_hold_and_notify_and_never_bring_back_the_laxer_engine(
    stage: Stage,
) -> None:
    await stage.enter("deploy", Phase.ENFORCED)
    news = stage.services.notices.follow()
    await decides(stage, "deploy", n=8, model="oversize")
    told = await stage.told(news, 2)
    (transition,) = await stage.looks()
    assert transition["kind"] == "hold"
    assert stage.state("deploy").phase is Phase.ENFORCED
    assert [kind for kind, _ in await told] == ["guardrail", "transition"]


async def test_a_hold_that_a_person_lifted_is_not_put_back_by_the_same_alarm(stage: Stage) -> None:
    await stage.enter("deploy", Phase.ENFORCED)
    await decides(stage, "deploy", n=8, model="oversize")
    await stage.looks()
    await stage.services.levers.resume("deploy", reason="seen", by=stage.principal("operator"))
    assert await stage.looks(times=3) == []


async def test_what_a_kill_switch_took_from_the_model_is_not_its_fallback(enforced: Stage) -> None:
    await enforced.services.levers.kill(engaged=True, reason="drill", by=enforced.principal("operator"))
    await decides(enforced, "read", n=20)
    assert await enforced.looks() == []
    assert assessment(enforced, "read", "fallback")["n"] == 0


async def test_harm_is_judged_before_a_hold(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await stage.services.levers.hold("read", reason="wait", by=stage.principal("operator"))
    await decides(stage, "read", n=8, model="malformed")
    assert [one["kind"] for one in await stage.looks()] == ["rollback"]


async def test_in_shadow_a_breach_is_only_reported(stage: Stage) -> None:
    await decides(stage, "read", n=8, model="malformed")
    await stage.observed(n=8)
    assert await stage.looks() == []
    assert assessment(stage, "read", "error")["outcome"] == "breach"
    assert stage.state("read").phase is Phase.SHADOW


async def test_without_data_nothing_is_rolled_back(enforced: Stage) -> None:
    assert await enforced.looks(times=20, every_s=3_600) == []
    outcomes = {one["outcome"] for one in enforced.services.guard.assessments("read")}
    assert outcomes == {"insufficient"}


@pytest.mark.parametrize("phase", list(Phase))
async def test_every_guardrail_is_listed_in_every_phase(stage: Stage, phase: Phase) -> None:
    await stage.enter("deploy", phase)
    for _ in range(2):  # before the first look, and after it
        listed = [one["name"] for one in stage.services.guard.assessments("deploy")]
        assert listed == list(Guardrail)
        await stage.looks()


async def test_counters_that_cannot_be_true_are_an_error_and_no_rollback(any_stage: Stage) -> None:
    state = await any_stage.enter("read", Phase.ENFORCED)
    minute = to_us(any_stage.clock.now()) // 60_000_000
    lost = CounterKey("read", state.version, state.epoch, minute, "observation", "ok")
    await any_stage.ledger.run(lambda tx: tx.count(lost, -5))
    assert await any_stage.looks() == []
    said = assessment(any_stage, "read", "error")
    assert (said["outcome"], "negative" in said["sentence"]) == ("error", True)
    with pytest.raises(GateNotMet, match="cannot be read"):
        await promote_again(any_stage)
    assert assessment(any_stage, "write", "error")["outcome"] == "insufficient"  # nobody else's business


async def promote_again(stage: Stage) -> None:
    """Ask the gate of a rollout that is not in its lowest phase: enforced once more, from advisory."""
    state = stage.state("read")
    await stage.enter("read", Phase.ADVISORY)
    minute = to_us(stage.clock.now()) // 60_000_000
    lost = CounterKey("read", state.version, stage.state("read").epoch, minute, "observation", "ok")
    await stage.ledger.run(lambda tx: tx.count(lost, -5))
    await promote(stage, "read", Phase.ENFORCED)


async def test_high_risk_recounts_its_ledger_before_a_promotion(stage: Stage) -> None:
    await with_evidence(stage, "deploy")
    state = stage.state("deploy")
    forged = CounterKey(
        "deploy", state.version, state.epoch, to_us(stage.clock.now()) // 60_000_000, "pair", "allow>allow"
    )
    await stage.ledger.run(lambda tx: tx.count(forged, 100))
    with pytest.raises(GateNotMet, match="the ledger"):
        await promote(stage, "deploy", Phase.ADVISORY)


@pytest.mark.parametrize("jump_s", [61, -61])
async def test_a_clock_that_jumps_makes_gates_an_error(stage: Stage, jump_s: int) -> None:
    await with_evidence(stage)
    stage.clock.jumps(seconds=jump_s)
    await stage.looks()
    gate = stage.services.rollouts.gate("read", Phase.ADVISORY)
    assert gate["outcome"] == "error"
    with pytest.raises(GateNotMet, match="clock jumped"):
        await promote(stage, "read", Phase.ADVISORY)


async def test_a_clock_that_drifts_a_little_is_steady(stage: Stage) -> None:
    await with_evidence(stage)
    stage.clock.jumps(seconds=59)
    await stage.looks()
    assert stage.services.rollouts.gate("read", Phase.ADVISORY)["outcome"] == "pass"


# --- soak -----------------------------------------------------------------------------------------


def served_s(stage: Stage, name: str = "write") -> int:
    return stage.evidence(name).totals.get(("served_s", "all"), 0)


async def test_soak_counts_the_time_between_passes(stage: Stage) -> None:
    await stage.looks(times=10, every_s=5)
    assert served_s(stage) == 50


async def test_held_time_is_not_served(stage: Stage) -> None:
    await stage.services.levers.hold("write", reason="wait", by=stage.principal("operator"))
    await stage.looks(times=10, every_s=5)
    assert served_s(stage) == 0


async def test_killed_time_is_not_served(stage: Stage) -> None:
    await stage.services.levers.kill(engaged=True, reason="wait", by=stage.principal("operator"))
    await stage.looks(times=10, every_s=5)
    assert served_s(stage) == 0


async def test_stale_time_is_not_served(stage: Stage) -> None:
    await stage.looks(times=3, every_s=61)
    assert served_s(stage) == 0


@pytest.mark.parametrize("trouble", ["is_ready", "circuit_open"])
async def test_time_without_a_model_is_not_served(stage: Stage, trouble: str) -> None:
    setattr(stage.model, trouble, trouble == "circuit_open")
    await stage.looks(times=10, every_s=5)
    assert served_s(stage) == 0


async def test_a_jump_of_the_clock_is_not_served(stage: Stage) -> None:
    stage.clock.jumps(days=3)
    await stage.looks()
    assert served_s(stage) == 0


async def test_a_day_with_few_observations_is_no_soak(stage: Stage) -> None:
    await decides(stage, "write", n=19)
    await stage.observed(n=19, rollout="write")
    await stage.looks(times=10, every_s=5)
    assert stage.evidence("write").soak_days == 0
    await stage.decide("write")
    await stage.observed(n=20, rollout="write")
    assert stage.evidence("write").soak_days == pytest.approx(50 / 86_400)


async def test_soak_opens_the_gate_only_after_its_days(stage: Stage) -> None:
    await stage.serves("write", days=1)
    with pytest.raises(GateNotMet, match="soak 1 day of 2 days: about 1 day more"):
        await promote(stage, "write", Phase.ADVISORY)
    await stage.serves("write", days=1)
    await promote(stage, "write", Phase.ADVISORY)


# --- oversight ------------------------------------------------------------------------------------


async def test_lapsed_oversight_holds_after_seven_days_and_demotes_after_seven_more(any_stage: Stage) -> None:
    await any_stage.enter("read", Phase.ENFORCED)
    await any_stage.decide()
    any_stage.clock.passes(days=6.9)
    assert await any_stage.services.guard.check_oversight() == []
    any_stage.clock.passes(days=0.1)
    (held,) = await any_stage.services.guard.check_oversight()
    assert (held["kind"], held["automatic"]) == ("hold", True)
    any_stage.clock.passes(days=6.9)
    assert await any_stage.services.guard.check_oversight() == []
    any_stage.clock.passes(days=0.1)
    (demoted,) = await any_stage.services.guard.check_oversight()
    assert (demoted["kind"], demoted["reason"]) == ("rollback", "no drawn review was judged for 14.0 days")
    assert any_stage.state("read").phase is Phase.ADVISORY


async def test_a_verdict_in_time_is_oversight(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    await decides(stage, "read", n=2)
    stage.clock.passes(days=6)
    await stage.judge_all("allow")
    stage.clock.passes(days=6)
    assert await stage.services.guard.check_oversight() == []


async def test_one_early_verdict_is_no_oversight_for_ever(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    first = await stage.decide()
    await stage.decide()
    await stage.judge(first["id"], "allow")
    stage.clock.passes(days=7.1)
    await stage.services.guard.expire_reviews()
    assert [one["kind"] for one in await stage.services.guard.check_oversight()] == ["hold"]


async def test_where_nothing_was_drawn_nothing_lapses(stage: Stage) -> None:
    await stage.enter("write", Phase.ENFORCED)
    await stage.decide("write")
    stage.clock.passes(days=30)
    assert await stage.services.guard.check_oversight() == []


async def test_a_drawn_review_that_nobody_judges_closes_and_is_missing_in_the_gate(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    await decides(stage, "read", n=12)
    await stage.until(lambda: stage.rows(t.reviews) == 12)
    left = await stage.decide(actor="the-last")
    await stage.until(lambda: stage.review(left["id"]))
    stage.clock.passes(days=3)
    for row in stage.queue()[:10]:
        await stage.judge(row["decision_id"], "allow")
    stage.clock.passes(days=4)
    await stage.services.guard.expire_reviews()
    assert {row["status"] for row in stage.queue("closed")} == {"closed"}
    gate = stage.services.rollouts.gate("read", Phase.ENFORCED)
    judged = next(one for one in gate["conditions"] if one["name"] == "reviews_judged")
    assert (judged["outcome"], judged["n"]) == ("insufficient", 13)
    await stage.looks()
    assert assessment(stage, "read", "override")["pending"] == 0


async def test_a_required_rollout_must_be_enforced_first(sqlite_database: Database, tmp_path: Path) -> None:
    needing = ROLLOUTS.replace(
        "actions: [write]", "actions: [write]\n    requires: {read: {enforced_days: 3}}"
    )
    async with opened(sqlite_database, tmp_path, rollouts=needing) as stage:
        gate = stage.services.rollouts.gate("write", Phase.ENFORCED)
        assert "read is in shadow, needs 3 days enforced" in gate["sentence"]


async def test_agreement_of_a_version_that_saw_the_legacy_answer_passes_no_gate(
    sqlite_database: Database, tmp_path: Path
) -> None:
    async with opened(sqlite_database, tmp_path, model=FakeModel(shows_legacy=True)) as stage:
        await with_evidence(stage)
        assert (
            stage.services.rollouts.evidence("read", stage.principal("operator"))["agreement"]["independent"]
            is False
        )
        with pytest.raises(GateNotMet, match="not independent"):
            await promote(stage, "read", Phase.ADVISORY)
