"""Does a report say what happened, and nothing that it cannot know?"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.domain.clock import to_us
from app.domain.decision import Decision
from app.domain.period import Period, span_of
from app.domain.phase import Phase
from app.errors import InvalidInput
from app.policy.suites import load_suites
from app.services.reports.render import as_html, as_markdown
from app.services.verdicts import Verdict
from app.store import tables as t
from app.store.database import Database
from app.store.deliveries import create_webhook
from tests.services.plane import Stage, opened
from tests.services.test_ramps import WIDENING, start
from tests.services.test_second_reviews import DOUBLED, judged, second

MARKUP = '<script>alert("x")</script>|`[x](http://evil.example)'


async def day(stage: Stage, *, n: int = 30, wrong: int = 0, action: str = "read", **said: Any) -> None:
    """A day of traffic of many actors, in some of which the model says deny to what the rules allow."""
    number = to_us(stage.clock.now()) // 86_400_000_000
    for i in range(n):
        model = "deny" if i < wrong else "allow"
        await stage.decide(
            action, actor=f"{number}-{i}", **{"model": model, "team_context": f"{number}-{i}", **said}
        )
    await stage.until(lambda: stage.rows(t.advisories) == stage.rows(t.decisions))
    stage.clock.passes(days=1)
    await stage.looks()


def report(stage: Stage, period: Period = Period.WEEKLY, at: datetime | None = None) -> dict[str, Any]:
    return stage.services.reports.of(period, at)


def row(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = [one for one in document["checklist"] if one["name"] == name]
    return found


def rollout(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = [one for one in document["rollouts"] if one["name"] == name]
    return found


async def test_a_fresh_plane_claims_nothing_of_its_traffic(any_stage: Stage) -> None:
    document = report(any_stage)
    met = {one["name"] for one in document["checklist"] if one["outcome"] == "met"}
    assert met <= {"model_loads", "decoding", "admin_stays_advisory", "resources"}
    assert document["summary"]["unmet"] == 0
    assert (document["complete"], document["stored"]) == (False, False)


async def test_the_weeks_of_shadow_are_told_apart(any_stage: Stage) -> None:
    for _ in range(7):
        await day(any_stage, n=10, wrong=1)
    for _ in range(7):
        await day(any_stage, n=10, wrong=2)
    document = report(any_stage, Period.MONTHLY)
    first, second = row(document, "agreement_week_1"), row(document, "agreement_week_2")
    assert (first["outcome"], first["value"]) == ("met", 0.9)
    assert (second["outcome"], second["value"]) == ("unmet", 0.8)


async def test_a_few_cases_are_neither_good_nor_bad(stage: Stage) -> None:
    await day(stage, n=12, wrong=6)
    assert row(report(stage, Period.MONTHLY), "agreement_week_1")["outcome"] == "unknown"


@pytest.mark.parametrize(
    ("model", "name", "outcome"),
    [
        ("allow", "errors", "met"),
        ("malformed", "errors", "unmet"),
        ("allow", "distribution", "unmet"),
        ("allow", "latency", "met"),
    ],
)
async def test_a_figure_meets_its_target_or_does_not(
    stage: Stage, model: str, name: str, outcome: str
) -> None:
    await day(stage, n=30, model=model)
    assert row(report(stage, Period.MONTHLY), name)["outcome"] == outcome


async def test_the_expected_distribution_is_met_by_all_three_shares(stage: Stage) -> None:
    for model, n in (("allow", 26), ("require_attestation", 8), ("deny", 6)):
        await day(stage, n=n, model=model)
    found = row(report(stage, Period.MONTHLY), "distribution")
    assert (found["outcome"], found["sentence"][:9]) == ("met", "allow 65%")


async def test_overrides_above_fifteen_percent_ask_for_a_better_prompt(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    await day(stage, n=30)
    await stage.judge_all("deny")
    document = report(stage, Period.MONTHLY)
    found = row(document, "override_rate")
    assert (found["outcome"], found["value"]) == ("unmet", 1.0)
    assert "review the prompt or add examples" in found["sentence"]
    assert rollout(document, "read")["next_step"].startswith("review the prompt")
    assert row(document, "override_categories")["outcome"] == "met"


async def test_agreeing_verdicts_meet_the_override_target(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    await day(stage, n=30)
    await stage.judge_all("allow")
    document = report(stage, Period.MONTHLY)
    assert row(document, "override_rate")["outcome"] == "met"
    assert rollout(document, "read")["figures"]["override_rate"] == 0


async def test_a_wrong_allow_on_high_risk_is_unmet_and_leads_to_its_investigation(stage: Stage) -> None:
    await stage.enter("deploy", Phase.ENFORCED)
    asked = await stage.decide("deploy")
    await stage.services.reviews.report(asked["id"], Verdict(Decision.DENY), stage.principal("operator"))
    document = report(stage)
    assert row(document, "wrong_allows")["outcome"] == "unmet"
    assert row(document, "investigated")["outcome"] == "unmet"
    assert rollout(document, "deploy")["next_step"].startswith("close the investigation")
    assert [one["kind"] for one in rollout(document, "deploy")["transitions"]] == ["promote", "rollback"]


async def test_a_gate_that_passes_is_the_next_step(stage: Stage) -> None:
    await day(stage, n=30)
    assert rollout(report(stage), "read")["next_step"] == "promote read to advisory: all conditions hold"


async def test_nobody_is_asked_to_do_what_a_ramp_does(database: Database, tmp_path: Path) -> None:
    async with opened(database, tmp_path, rollouts=WIDENING) as stage:
        await stage.enter("read", Phase.ENFORCED, exposure=0.05)
        assert rollout(report(stage), "read")["next_step"].startswith("widen the exposure from 5%")
        await start(stage)
        assert rollout(report(stage), "read")["next_step"].startswith("nothing: its ramp widens")


async def test_uptime_counts_what_the_guard_saw(stage: Stage) -> None:
    stage.clock.passes(hours=63)  # to a midnight, when the reported day begins
    await stage.looks(times=1)
    await stage.looks(times=100, every_s=50)
    document = report(stage, Period.DAILY)
    assert document["uptime"]["plane_s"] == document["uptime"]["model_s"] == 5000
    assert row(document, "uptime")["outcome"] == "met"
    stage.model.is_ready = False
    await stage.looks(times=100, every_s=50)
    document = report(stage, Period.DAILY)
    assert (document["uptime"]["plane_s"], document["uptime"]["model_s"]) == (10_000, 5000)
    assert (row(document, "uptime")["outcome"], row(document, "model_uptime")["outcome"]) == ("met", "unmet")
    stage.clock.passes(hours=2)
    await stage.looks()
    assert row(report(stage, Period.DAILY), "uptime")["outcome"] == "unmet"


async def test_disagreements_are_grouped_largest_first(any_stage: Stage) -> None:
    await day(any_stage, n=6, wrong=4)
    await day(any_stage, n=2, legacy="deny", actor_role="guest")
    found = report(any_stage, Period.MONTHLY)["disagreements"]
    assert (found["looked_at"], found["found"]) == (8, 6)
    told = [(c["legacy_decision"], c["model_decision"], c["actor_role"], c["n"]) for c in found["clusters"]]
    assert told == [("allow", "deny", "member", 4), ("deny", "allow", "guest", 2)]
    assert found["clusters"][0]["share"] == pytest.approx(4 / 6)
    assert found["clusters"][0]["legacy_rule"] == "open"


async def test_a_period_holds_its_own_rows_alone(any_stage: Stage) -> None:
    start = any_stage.clock.now()
    for wrong in (1, 2, 3):
        await day(any_stage, n=5, wrong=wrong)
    found = [report(any_stage, Period.DAILY, start + timedelta(days=i)) for i in range(4)]
    assert [one["disagreements"]["found"] for one in found] == [1, 2, 3, 0]
    assert [rollout(one, "read")["figures"]["observed"] for one in found] == [5, 5, 5, 0]


async def test_an_edge_case_is_a_line_that_a_suite_takes(stage: Stage, tmp_path: Path) -> None:
    await stage.enter("read", Phase.ADVISORY)
    await day(stage, n=3, wrong=3, resource_notes=MARKUP)
    await stage.judge_all("allow")
    document = stage.services.reports.with_lines(report(stage, Period.MONTHLY))
    lines = document["suite_lines"]
    assert [line["expected"] for line in lines] == ["allow"] * 3
    suites = stage.files.policies_dir / "suites"
    suites.mkdir()
    path = suites / "edge.jsonl"
    path.write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines[:2]))
    assert len(load_suites([path]).cases) == 2
    again = stage.services.reports.with_lines(report(stage, Period.MONTHLY))
    assert [line["id"] for line in again["suite_lines"]] == [lines[2]["id"]]


async def test_two_people_who_judge_the_same_are_compared_and_teach_only_what_they_agree_on(
    database: Database, tmp_path: Path
) -> None:
    async with opened(database, tmp_path, rollouts=DOUBLED) as stage:
        alike, unlike = [await judged(stage, "deny", actor=actor) for actor in ("ann", "bob")]
        await second(stage, alike, "deny")
        assert [one["decision_id"] for one in report(stage)["edge_cases"]] == [alike]
        await second(stage, unlike, "allow")
        document = report(stage)
    assert [one["decision_id"] for one in document["edge_cases"]] == [alike]
    twice = document["reviewers"]["doubles"]
    assert (twice["n"], twice["agreement"]) == (2, 0.5)
    # Shares of all four verdicts: 1/4 allow, 3/4 deny; by chance (3/16 + 3/16) / 2 are alike.
    assert twice["ac1"] == pytest.approx((0.5 - 3 / 16) / (1 - 3 / 16))
    assert "agree on 50.0% of 2 (Gwet's AC1 0.385)" in as_markdown(document)


async def test_a_rollout_without_a_baseline_has_its_page_all_the_same(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    await day(stage, n=2)
    document = report(stage, Period.MONTHLY)
    assert rollout(document, "read")["baseline"] is None
    assert "| agreement | 100.0% of 2 |" in as_markdown(document)
    assert "<td>100.0% of 2</td>" in as_html(document)


async def test_what_is_kept_holds_no_situation(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    await day(stage, n=3, wrong=3, secret="the-secret-of-the-situation")
    await stage.judge_all("allow")
    stage.clock.passes(days=1)
    await stage.services.reports.keep_due()
    with stage.database.read() as connection:
        kept = connection.execute(t.reports.select()).mappings().all()
    assert kept
    assert "the-secret-of-the-situation" not in str([dict(one) for one in kept])
    assert "suite_lines" not in str([dict(one) for one in kept])


async def test_every_period_that_is_over_is_kept_once_whoever_tries(any_stage: Stage) -> None:
    stage = any_stage
    other = replace(stage.services.reports)
    await stage.ledger.run(
        lambda tx: create_webhook(tx, url="http://h.test/", kinds=("report",), by="test", now_us=1)
    )
    stage.clock.passes(days=3)
    kept = await stage.services.reports.keep_due()
    assert kept == ["daily-2027-01-15", "daily-2027-01-16", "daily-2027-01-17", "weekly-2027-01-11"]
    assert await other.keep_due() == []
    # Two that began before either had kept anything: the row's key decides.
    stage.clock.passes(days=1)
    span = span_of(Period.DAILY, stage.clock.now() - timedelta(days=1))
    document = other.make(span)
    assert [await one._keep(span, document) for one in (other, stage.services.reports)] == [True, False]
    assert stage.rows(t.reports) == stage.rows(t.deliveries) == 5


async def test_a_kept_report_is_what_its_period_shows_from_then_on(stage: Stage) -> None:
    start = stage.clock.now()
    await day(stage, n=3)
    await stage.services.reports.keep_due()
    document = report(stage, Period.DAILY, start)
    assert (document["stored"], document["complete"]) == (True, True)
    assert [one["id"] for one in stage.services.reports.kept()] == ["daily-2027-01-15"]


async def test_a_week_that_is_kept_is_a_weekly_review(stage: Stage) -> None:
    assert row(report(stage), "weekly_review")["outcome"] == "unknown"
    stage.clock.passes(days=7)
    assert row(report(stage), "weekly_review")["outcome"] == "unmet"
    await stage.services.reports.keep_due()
    assert row(report(stage), "weekly_review")["outcome"] == "met"


async def test_a_period_to_come_has_no_report(stage: Stage) -> None:
    with pytest.raises(InvalidInput, match="has not begun"):
        report(stage, Period.DAILY, stage.clock.now() + timedelta(days=1))
    with pytest.raises(InvalidInput, match="has not begun"):
        report(stage, Period.WEEKLY, datetime.max.replace(tzinfo=UTC))


async def test_what_was_before_the_plane_has_no_report(stage: Stage) -> None:
    for at in (stage.clock.now() - timedelta(days=40), datetime.min.replace(tzinfo=UTC)):
        with pytest.raises(InvalidInput, match="before this plane first started"):
            report(stage, Period.DAILY, at)


async def test_what_somebody_still_judges_is_nobodys_example(any_stage: Stage) -> None:
    await any_stage.enter("read", Phase.ADVISORY)
    await day(any_stage, n=2, wrong=2)
    (cluster,) = report(any_stage, Period.MONTHLY)["disagreements"]["clusters"]
    assert (cluster["n"], cluster["example"]) == (2, None)
    await any_stage.judge_all("deny")
    (cluster,) = report(any_stage, Period.MONTHLY)["disagreements"]["clusters"]
    assert cluster["example"] is not None
