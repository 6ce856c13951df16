"""Can a person find a decision, read its whole story, and take what they found along?"""

import csv
import io
import json
from html import unescape
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import delete, event, update

from app.domain.decision import Decision
from app.domain.phase import Phase
from app.domain.role import Role
from app.domain.search import CHOICES, Filters
from app.services.verdicts import Verdict
from app.store import search
from app.store import tables as t
from app.web.console import decision_files, exports
from app.web.console import decisions as room
from tests.services.plane import Stage

SCRIPT = "<script>alert(1)</script>"
HTMX = {"HX-Request": "true"}


async def see(stage: Stage, path: str, *, who: str = "operator") -> str:
    response = await stage.call("GET", path, who=who)
    assert response.status_code == 200, response.text
    return response.text


async def read(stage: Stage, path: str, *, who: str = "operator") -> str:
    """A page as people read it, on one line."""
    return " ".join(unescape(await see(stage, path, who=who)).split())


async def listed(stage: Stage, *, who: str = "operator", **asked: str) -> list[str]:
    """The decisions of the JSON lines, which have to be those of the page too."""
    query = urlencode(asked)
    lines = (await see(stage, f"/decisions.jsonl?{query}", who=who)).splitlines()
    found = [json.loads(line)["id"] for line in lines]
    page = await see(stage, f"/decisions?{query}", who=who)
    assert [each for each in found if f'href="/decisions/{each}"' not in page] == []
    assert page.count('<th scope="row">') == len(found)
    return found


async def many_kinds(stage: Stage) -> dict[str, str]:
    """One decision of each kind, by what it is known for."""
    await stage.enter("write", Phase.ENFORCED)
    await stage.enter("admin", Phase.ADVISORY)
    asked = {
        "alike": {"action": "read"},
        "apart": {"action": "read", "legacy": "deny", "actor": "bob"},
        "late": {"action": "write", "model": "timeout"},
        "unsure_of": {"action": "write", "legacy": "deny", "model": "deny"},
        "waiting": {"action": "admin_action"},
        "lapsed": {"action": "admin_action", "actor": "cy"},
        "judged": {"action": "admin_action", "actor": "di"},
    }
    made = {}
    for name, said in asked.items():
        made[name] = (await stage.decide(**said))["id"]
        stage.clock.passes(minutes=1)
        stage.services.plane.refresh()
        await stage.services.guard.look()
    await stage.judge(made["judged"], "allow")
    await stage.until(lambda: stage.rows(t.advisories) == len(asked))
    return made


# What is asked for, and which of them that is.
FINDS: list[tuple[dict[str, str], set[str]]] = [
    ({"rollout": "write"}, {"late", "unsure_of"}),
    ({"phase": "shadow"}, {"alike", "apart"}),
    ({"legacy": "deny"}, {"apart", "unsure_of"}),
    ({"legacy": "deny", "model": "allow"}, {"apart"}),
    ({"model": "deny"}, {"unsure_of"}),
    ({"model": "timeout"}, {"late"}),
    ({"model": "none"}, set()),
    ({"agreement": "false"}, {"apart"}),
    ({"agreement": "true", "phase": "enforced"}, {"unsure_of"}),
    ({"decision": "require_attestation"}, {"waiting", "lapsed"}),
    ({"decision": "deny"}, {"apart", "unsure_of"}),
    ({"answered_by": "reviewer"}, {"judged"}),
    ({"answered_by": "model"}, {"unsure_of"}),
    ({"fallback": "any"}, {"late"}),
    ({"fallback": "timeout"}, {"late"}),
    ({"fallback": "none", "rollout": "write"}, {"unsure_of"}),
    ({"review": "judged"}, {"judged"}),
    ({"review": "none", "rollout": "write"}, {"late", "unsure_of"}),
    ({"actor": "bob"}, {"apart"}),
    ({"actor": "bob", "rollout": "write"}, set()),
    ({"action": "write"}, {"late", "unsure_of"}),
    ({"version": "fake-2"}, set()),
    ({"since": "2027-01-15T09:01", "until": "2027-01-15T09:03"}, {"apart", "late"}),
]


async def test_each_filter_finds_what_it_says(any_stage: Stage) -> None:
    made = await many_kinds(any_stage)
    for asked, wanted in FINDS:
        found = await listed(any_stage, **asked)
        assert found == sorted((made[name] for name in wanted), reverse=True), asked


async def test_what_is_in_force_now_is_found_and_not_what_was_answered_first(stage: Stage) -> None:
    made = await many_kinds(stage)
    stage.clock.passes(minutes=20)
    assert await listed(stage, answered_by="fail_safe") == sorted(
        [made["waiting"], made["lapsed"]], reverse=True
    )
    assert await listed(stage, decision="require_attestation") == []
    assert len(await listed(stage, review="expired")) == 2
    assert await listed(stage, review="open", rollout="admin") == []


async def test_every_choice_of_the_form_may_be_asked_for_on_the_page_and_over_http(stage: Stage) -> None:
    for name, values in CHOICES.items():
        for value in values:
            assert f'<option value="{value}" selected>' in await see(stage, f"/decisions?{name}={value}")
            assert (await stage.call("GET", f"/v1/decisions?{name}={value}")).status_code == 200


@pytest.mark.parametrize(
    "asked",
    [
        "phase=full",
        "model=ok",
        "fallback=bad",
        "review=x",
        "agreement=1",
        "since=soon",
        "epoch=9999999999",
        "until=9999-12-31T23:59-14:00",
    ],
)
async def test_a_filter_that_is_none_is_named_and_begins_no_file(stage: Stage, asked: str) -> None:
    for path in ("/decisions", "/decisions.csv", "/decisions.jsonl"):
        response = await stage.call("GET", f"{path}?{asked}", headers={"Accept": "text/html"})
        assert response.status_code == 422
        assert unescape(response.text).count(asked.partition("=")[0].capitalize() + ": must be") == 1


async def test_the_address_keeps_only_what_was_asked_for(stage: Stage) -> None:
    response = await stage.call("GET", "/decisions?rollout=&phase=shadow&actor=+bob+&until=")
    assert (response.status_code, response.headers["Location"]) == (303, "/decisions?actor=bob&phase=shadow")


async def test_the_id_box_leads_to_one_decision(stage: Stage) -> None:
    response = await stage.call("GET", "/decisions?id=+a/b+")
    assert response.headers["Location"] == "/decisions/a%2Fb"


async def test_an_empty_list_says_which_filter_to_loosen(stage: Stage) -> None:
    assert "No decision yet" in await see(stage, "/decisions")
    await stage.decide(actor="bob")
    page = await read(stage, "/decisions?actor=bobby&phase=shadow")
    assert 'There are some without <a href="/decisions?phase=shadow">actor bobby</a>.' in page
    assert "There are some without" not in await read(stage, "/decisions?actor=bobby&phase=enforced")


async def test_pages_lead_to_older_decisions_and_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PAGE", 2)
    ids = [(await stage.decide())["id"] for _ in range(6)][::-1]
    path, seen = "/decisions?rollout=read", []
    for _ in range(3):
        page = unescape(await see(stage, path))
        seen.append(ids_on(page, ids))
        path = link(page, "Older") or path
    assert seen == [ids[:2], ids[2:4], ids[4:]]
    assert link(page, "Older") is None
    for wanted in (ids[2:4], ids[:2]):
        page = unescape(await see(stage, link(page, "Newer") or ""))
        assert ids_on(page, ids) == wanted
    assert link(page, "Older") == f"/decisions?rollout=read&before={ids[1]}"


def ids_on(page: str, ids: list[str]) -> list[str]:
    return [each for each in ids if f'href="/decisions/{each}"' in page]


def link(page: str, name: str) -> str | None:
    """Where the button of that name leads."""
    before, found, _ = page.partition(f'">{name}</a>')
    return before.rpartition('href="')[2] if found else None


async def test_a_rare_answer_is_searched_for_piece_by_piece(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LOOK_AT", 3)
    rare = (await stage.decide(legacy="deny"))["id"]
    for _ in range(5):
        await stage.decide()
    first = unescape(await see(stage, "/decisions?legacy=deny"))
    assert "Looked at 3 decisions" in first
    assert rare not in first
    assert rare in await see(stage, link(first, "Older") or "")
    first_page = (await stage.call("GET", "/v1/decisions?legacy=deny")).json()
    assert (first_page["decisions"], first_page["looked_at"]) == ([], 3)
    further = (
        await stage.call("GET", f"/v1/decisions?legacy=deny&cursor={first_page['next_cursor']}")
    ).json()
    assert [one["id"] for one in further["decisions"]] == [rare]
    assert json.loads(await see(stage, "/decisions.jsonl?legacy=deny"))["id"] == rare


ASKED_OF_A_MILLION = {
    "all": Filters(),
    "a rollout": Filters(rollout="read"),
    "an actor": Filters(actor_id="bob"),
    "differing": Filters(agreement=False),
    "a cell of the confusion": Filters(rollout="read", legacy="allow", model="deny", epoch=1),
    "judged": Filters(decision="deny", answered_by="reviewer", review="judged"),
    "a caller's": Filters(fallback="any", key_id="k"),
    "an actor's, differing": Filters(actor_id="bob", agreement=False, phase="shadow"),
    "of a time": Filters(since_us=1, until_us=2_000_000_000_000_000, model="none"),
}


@pytest.mark.parametrize("asked_for", ASKED_OF_A_MILLION)
async def test_a_page_walks_along_an_index_and_sorts_nothing(stage: Stage, asked_for: str) -> None:
    filters = ASKED_OF_A_MILLION[asked_for]
    await many_kinds(stage)
    asked: list[tuple[str, Any]] = []
    with stage.database.read() as connection:
        event.listen(connection, "before_cursor_execute", lambda *each: asked.append((each[2], each[3])))
        for newer in (False, True):
            search.page(connection, filters, now_us=1, limit=50, cursor="01", newer=newer)
        queries = [each for each in asked if each[0].startswith("SELECT")]
        for statement, values in queries:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            for step in (row[3] for row in plan):
                assert "USING" in step, plan
                assert "TEMP B-TREE" not in step, plan
                assert step.startswith("SEARCH"), plan


# --- what may be seen ------------------------------------------------------------------------------------


async def test_a_caller_sees_their_own_decisions_only(stage: Stage) -> None:
    own = (await stage.decide(actor="zoe"))["id"]
    others = (await stage.decide(actor="zoe", who="admin"))["id"]
    assert await listed(stage, who="caller", actor="zoe") == [own]
    assert "zoe: read" in await read(stage, f"/decisions/{own}", who="caller")
    for path in ("", "/why"):
        assert (await stage.call("GET", f"/decisions/{others}{path}", who="caller")).status_code == 404
    csv_of = await see(stage, "/decisions.csv", who="caller")
    assert own in csv_of
    assert others not in csv_of
    assert '<option value="write">' not in await see(stage, "/decisions", who="caller")


async def test_a_blind_reviewer_is_shown_nothing_that_tells_the_model(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    for number in range(16):
        await stage.decide(legacy="allow", model="deny", actor=f"actor-{number}")
    blind = {row["decision_id"] for row in stage.queue() if row["mode"] == "blind"}
    assert blind
    for asked in ({"model": "deny"}, {"decision": "deny"}, {"agreement": "false"}, {"answered_by": "model"},
                  {"fallback": "none"}):  # fmt: skip
        assert not blind & set(await listed(stage, who="reviewer", **asked)), asked
        assert blind <= set(await listed(stage, who="auditor", **asked))
    cursor: str | None = ""
    places: set[str | None] = set()
    while cursor is not None:
        asked_for = f"/v1/decisions?model=deny&limit=1{cursor and '&cursor='}{cursor}"
        cursor = (await stage.call("GET", asked_for, who="reviewer")).json()["next_cursor"]
        places.add(cursor)
    assert len(places) > 1
    assert not blind & places, "not even where they are"
    rows = list(csv.DictReader(io.StringIO(await see(stage, "/decisions.csv", who="reviewer"))))
    hidden = [row for row in rows if row["id"] in blind]
    assert len(hidden) == len(blind)
    for name in ("advisory_decision", "advisory_confidence", "agreement", "decision", "answered_by"):
        assert {row[name] for row in hidden} == {""}
    for path in ("", "/why"):
        story = await read(stage, f"/decisions/{min(blind)}{path}", who="reviewer")
        assert "Withheld until you have judged it" in story
        assert 'class="decision deny"' not in story
        assert "mainly because" not in story
        assert "<mark>" not in story


async def test_what_callers_write_cannot_act_on_a_page_or_hide(stage: Stage) -> None:
    stage.model.unsure = False
    hostile = {"actor": SCRIPT, "note": f"{SCRIPT}\u202e", "team_context": "a\u200bb"}
    made = (await stage.decide(**hostile))["id"]
    for path in ("/decisions", f"/decisions/{made}", f"/decisions/{made}/why", f"/decisions?actor={SCRIPT}x"):
        page = await see(stage, path)
        assert SCRIPT not in page, path
        assert "&lt;script&gt;" in page, path
        assert "\u202e" not in page
    assert "[U+202E]" in await see(stage, f"/decisions/{made}")
    assert "a[U+200B]b" in await see(stage, f"/decisions/{made}")


# --- one decision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "action", "said", "told"),
    [
        (Phase.SHADOW, "read", {"legacy": "deny"},
         ("The legacy engine said deny by its rule default. The model said allow at 90 %. In shadow the legacy "
         "engine's answer counts; the model only looks on.")),
        (Phase.ENFORCED, "read", {"legacy": "deny"},
         ("Enforced with combine: model, its allow over a legacy deny becomes require attestation. It waits for a "
         "person until 2027-01-15 09:15:00 UTC; after that it is denied.")),
        (Phase.ENFORCED, "read", {"model": "deny"}, "Enforced with combine: model, the model's answer counts."),
        (Phase.ENFORCED, "write", {"model": "deny"},
         ("The legacy engine said allow by its rule open. The model said deny at 90 %. Enforced with combine: "
         "stricter, the more severe of both answers counts.")),
        (Phase.ENFORCED, "write", {"model": "timeout"},
         ("The model gave no answer: timeout. The model should have answered, but the model did not answer within "
         "the deadline: the legacy engine's answer counts.")),
        (Phase.ENFORCED, "deploy", {"model": "timeout"},
         ("the legacy engine's answer counts. The policy asks for a person here, so that allow became require "
         "attestation. It waits")),
        (Phase.ENFORCED, "write", {"legacy": "fail"}, "which counts as deny."),
        (Phase.ADVISORY, "admin", {},
         ("In advisory the legacy engine's answer counts; the model only looks on. The policy asks for a person "
         "here, so that allow became require attestation.")),
    ],
    ids=lambda each: str(each)[:24],
)  # fmt: skip
async def test_a_decision_says_how_it_came_about(
    stage: Stage, phase: Phase, action: str, said: dict[str, str], told: str
) -> None:
    await stage.enter(action, phase)
    made = await stage.decide("admin_action" if action == "admin" else action, **said)
    await stage.until(lambda: stage.rows(t.advisories) == 1)
    assert told in await read(stage, f"/decisions/{made['id']}")


async def test_the_fields_that_carried_an_answer_are_marked_in_the_situation(stage: Stage) -> None:
    await stage.enter("write", Phase.ENFORCED)
    made = (await stage.decide("write", model="deny", note="as ever"))["id"]
    page = await read(stage, f"/decisions/{made}/why")
    assert "<mark>deny</mark><small>carried the answer: without it still deny, -40.0 points for deny" in page
    assert page.count("<mark>") == 1
    assert "Deny, mainly because of details." in page
    assert "as ever" in page
    assert "5.0 %" in page
    assert "80 tokens" in page


async def test_reasons_are_asked_for_only_where_nobody_did(stage: Stage) -> None:
    made = (await stage.decide())["id"]
    await stage.until(lambda: stage.rows(t.advisories) == 1)
    await stage.story(made)
    before = stage.model.explained
    assert 'hx-trigger="load" hx-swap="outerMorph"' not in await see(stage, f"/decisions/{made}")
    assert stage.model.explained == before


async def test_a_verdict_is_shown_with_who_gave_it_and_what_became_of_it(stage: Stage) -> None:
    await stage.enter("admin", Phase.ADVISORY)
    made = (await stage.decide("admin_action"))["id"]
    waiting = await read(stage, f"/decisions/{made}")
    assert "live:review from:body" in waiting
    verdict = Verdict(Decision.ALLOW, "agree", f"Fine {SCRIPT}")
    review = stage.review(made)
    assert review is not None
    await stage.services.reviews.judge(review["id"], verdict, stage.principal("reviewer"))
    page = await read(stage, f"/decisions/{made}")
    assert "A reviewer then said allow, which is in force, valid until 2027-01-15 09:15:00 UTC." in page
    assert '<strong>reviewer</strong> <span class="decision allow">allow</span>' in page
    assert f"Fine {SCRIPT}" in page
    assert "live:review from:body" not in page


async def test_a_verdict_that_was_taken_back_says_so(stage: Stage) -> None:
    made = (await stage.decide())["id"]
    await stage.until(lambda: stage.review(made) is not None)
    await stage.judge(made, "deny")
    review = stage.review(made)
    assert review is not None
    await stage.services.reviews.undo(review["id"], stage.principal("reviewer"))
    page = await read(stage, f"/decisions/{made}")
    assert 'class="gone"' in page
    assert "taken back" in page
    assert "took back what they had said" in page


async def test_an_incident_is_reported_from_the_page_by_those_who_may(stage: Stage) -> None:
    made = (await stage.decide())["id"]
    path = f"/decisions/{made}/report"
    assert "Report an incident" in await see(stage, f"/decisions/{made}")
    assert "Report an incident" not in await see(stage, f"/decisions/{made}", who="auditor")
    wrong = await stage.call("POST", path, who="operator", data={"notes": "x"}, headers=HTMX)
    assert (wrong.status_code, "must be one of" in wrong.text) == (422, True)
    said = {"decision": "deny", "category": "model_too_permissive", "notes": "It was on fire."}
    done = await stage.call("POST", path, who="operator", data=said, headers=HTMX)
    assert done.headers["HX-Redirect"] == f"/decisions/{made}"
    assert "It was on fire." in await see(stage, f"/decisions/{made}")


async def test_a_decision_whose_situation_was_erased_says_so(stage: Stage) -> None:
    made = (await stage.decide(actor="gone"))["id"]
    with stage.database.write() as connection:
        connection.execute(delete(t.situations).where(t.situations.c.decision_id == made))
    page = await read(stage, f"/decisions/{made}")
    assert "The situation was erased" in page
    assert "gone" not in page.partition("<main")[2]
    assert await listed(stage) == [made]
    assert "The legacy engine said allow" in await read(stage, f"/decisions/{made}/why")


async def test_what_is_not_there_is_not_found(stage: Stage) -> None:
    assert (await stage.call("GET", "/decisions/none")).status_code == 404
    assert "in no commit batch" in await see(stage, "/decisions/none/chain")


async def test_a_decision_knows_its_place_in_the_chain_and_whether_that_holds(any_stage: Stage) -> None:
    ids = []
    for _ in range(4):
        ids.append((await any_stage.decide())["id"])
        any_stage.clock.passes(seconds=30)
    for made in ids:
        place = any_stage.services.administration.place_in_chain(made)
        assert place is not None
        assert (place["ok"], place["instance"], len(place["hash"])) == (True, "test", 64)
    page = await read(any_stage, f"/decisions/{ids[1]}/chain")
    assert '<span class="outcome pass">' in page
    for role in (Role.CALLER, Role.REVIEWER):
        response = await any_stage.call("GET", f"/decisions/{ids[1]}/chain", who=role.value)
        assert response.status_code == 403


async def test_a_changed_situation_is_seen_from_its_decision_and_not_from_its_neighbour(stage: Stage) -> None:
    first = (await stage.decide())["id"]
    changed = (await stage.decide())["id"]
    with stage.database.write() as connection:
        connection.exec_driver_sql("DROP TRIGGER situations_no_update")
        there = t.situations.c.decision_id == changed
        connection.execute(update(t.situations).where(there).values(actor_id="eve"))
    page = await read(stage, f"/decisions/{changed}/chain")
    assert '<span class="outcome fail">' in page
    assert f"situations {changed} was changed" in page
    assert '<span class="outcome pass">' in await read(stage, f"/decisions/{first}/chain")


# --- files -------------------------------------------------------------------------------------------------


async def test_a_spreadsheet_is_told_nothing_to_do(stage: Stage) -> None:
    for actor in ("=1+1", "+1", "-1", "@SUM(A1)", "mal\u202eory", 'quoted "and", so on'):
        await stage.decide(actor=actor)
    response = await stage.call("GET", "/decisions.csv")
    assert response.headers["Content-Disposition"] == 'attachment; filename="decisions.csv"'
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["actor_id"] for row in reversed(rows)] == [
        "'=1+1", "'+1", "'-1", "'@SUM(A1)", "mal[U+202E]ory", 'quoted "and", so on',
    ]  # fmt: skip
    assert float(rows[0]["latency_ms"]) >= 0
    exact = [json.loads(line) for line in (await see(stage, "/decisions.jsonl")).splitlines()]
    assert exact[1]["situation"]["actor_id"] == "mal\u202eory"


async def test_a_file_holds_what_the_list_does_page_after_page(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PAGE", 2)
    ids = [(await stage.decide(actor="bob"))["id"] for _ in range(5)][::-1]
    await stage.decide(actor="ann")
    rows = csv.DictReader(io.StringIO(await see(stage, "/decisions.csv?actor=bob")))
    assert [row["id"] for row in rows] == ids
    assert await listed(stage, actor="bob") == ids


async def test_a_file_that_was_cut_says_so_in_its_last_line(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_files, "MAX_ROWS", 3)
    ids = [(await stage.decide())["id"] for _ in range(3)]
    assert "cut after" not in await see(stage, "/decisions.csv")
    ids = [*ids, *[(await stage.decide())["id"] for _ in range(2)]][::-1]
    lines = (await see(stage, "/decisions.csv")).splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == [*ids[:3], "cut after 3 decisions"]
    last = json.loads((await see(stage, "/decisions.jsonl")).splitlines()[-1])
    assert last == {"notice": "cut after 3 decisions", "next_cursor": ids[2]}
