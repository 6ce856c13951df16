"""What may a reviewer see before and after their verdict, and whose is a card?"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.domain.phase import Phase
from app.store import tables as t
from app.store.database import Database
from tests.services.plane import Stage, opened
from tests.services.test_second_reviews import DOUBLED

ONE, OTHER = "reviewer", "another_reviewer"
PART = {"HX-Request": "true"}


@pytest.fixture
async def reading(stage: Stage) -> Stage:
    """Every decision of `read` is drawn."""
    await stage.enter("read", Phase.ENFORCED)
    return stage


@pytest.fixture
async def doubled(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    """Every drawn review is for two people."""
    async with opened(sqlite_database, tmp_path, rollouts=DOUBLED) as stage:
        await stage.enter("read", Phase.ENFORCED)
        yield stage


async def post(stage: Stage, act: str, who: str = ONE, **fields: str) -> httpx.Response:
    return await stage.call("POST", f"/reviews/{act}", who=who, data=fields, headers=PART)


async def take(stage: Stage, who: str = ONE, **fields: str) -> str:
    response = await post(stage, "take", who, **fields)
    assert response.status_code == 200, response.text
    return response.text


def shown(text: str) -> str | None:
    """The review on the desk."""
    found = re.search(r'data-review="([^"]*)"', text)
    assert found is not None, text
    return found[1] or None


async def of_mode(stage: Stage, mode: str, **said: Any) -> str:
    """A review of that mode, in hand."""
    for number in range(40):
        decision = await stage.decide(actor=f"{mode}-{number}", **said)
        review = stage.review(decision["id"])
        assert review is not None
        if review["mode"] == mode:
            await take(stage, turn_to=review["id"])
            return str(review["id"])
    raise AssertionError("chance made none")


def mark_of(stage: Stage, review_id: str, kind: str) -> Any:
    m = t.review_marks.c
    with stage.database.read() as connection:
        query = select(t.review_marks).where(m.review_id == review_id, m.kind == kind)
        return connection.execute(query).mappings().one_or_none()


# --- blind first -----------------------------------------------------------------------------------


async def test_a_blind_card_does_not_tell_the_models_answer(reading: Stage) -> None:
    texts = {}
    for answer in ("allow", "deny"):
        card = await of_mode(reading, "blind", model=answer)
        page = (await reading.call("GET", "/reviews", who=ONE)).text
        assert shown(page) == card
        # How likely it was to be drawn depends on whether model and rules agree.
        assert "%" not in page
        # The fake model is told its answer by the situation; all else must be the same for both.
        page = re.sub(r'data-key="u".*?</button>', "", page)  # it names what was judged before
        told = re.sub(rf"<dd>{answer}\s*</dd>", "", page)
        texts[answer] = re.sub(r'nonce="[^"]*"|[0-9a-f]{8}-[0-9a-f-]{27}|blind-\d+|question \d+', "", told)
        assert (await reading.call("GET", f"/reviews/{card}/reasons", who=ONE)).status_code == 404
        await post(reading, "verdict", review=card, decision="deny")
    assert texts["allow"] == texts["deny"]


async def test_after_a_blind_verdict_all_three_stand_side_by_side_and_the_time_is_kept(
    reading: Stage,
) -> None:
    card = await of_mode(reading, "blind")
    assert mark_of(reading, card, "reveal") is None
    text = (await post(reading, "verdict", review=card, decision="deny")).text
    assert "Side by side" in text
    assert 'class="differs"' in text
    assert "details" in text
    assert mark_of(reading, card, "reveal")["created_us"] == reading.services.now_us()
    assert "as the verdict says: model too permissive" in text


async def test_an_assisted_card_shows_what_the_model_recommends_and_why(reading: Stage) -> None:
    card = await of_mode(reading, "assisted")
    text = (await reading.call("GET", f"/reviews/{card}/reasons", who=ONE)).text
    assert "LLM recommends" in text
    assert "mainly because of details" in text
    assert "<mark>allow</mark>" in text


async def test_who_took_a_verdict_back_judges_assisted(reading: Stage) -> None:
    card = await of_mode(reading, "blind")
    await post(reading, "verdict", review=card, decision="deny")
    text = (await post(reading, "undo")).text
    assert shown(text) == card
    assert "counts as assisted" in text
    await post(reading, "verdict", review=card, decision="allow")
    agreement = reading.services.desk.pace(reading.principal(ONE))["agreement"]
    assert (agreement["blind"]["n"], agreement["assisted"]["n"]) == (0, 1)


async def test_a_card_says_how_it_came_to_be_drawn_or_that_it_is_no_evidence(reading: Stage) -> None:
    await of_mode(reading, "assisted")
    assert "Drawn with probability 100.0 %" in (await reading.call("GET", "/reviews", who=ONE)).text
    blind = await of_mode(reading, "blind")
    assert "Drawn by chance" in await take(reading, turn_to=blind)
    assert "Drawn with probability" in (await post(reading, "verdict", review=blind, decision="allow")).text
    await reading.enter("write", Phase.ADVISORY)
    await reading.decide("write", legacy="require_attestation")
    text = await take(reading, kind="binding")
    assert "A caller waits." in text


async def test_what_was_added_after_the_answer_was_seen_stands_beside_what_was_said_before(
    reading: Stage,
) -> None:
    card = await of_mode(reading, "blind")
    await post(reading, "verdict", review=card, decision="deny")
    await post(reading, "go-on", review=card, decision="deny", category="unclear", notes="hard to say")
    decision_id = next(row["decision_id"] for row in reading.queue("judged") if row["id"] == card)
    verdicts = (await reading.story(decision_id))["verdicts"]
    assert [(each["decision"], each["category"]) for each in verdicts] == [
        ("deny", None),
        ("deny", "unclear"),
    ]


async def test_going_on_without_a_word_adds_nothing(reading: Stage) -> None:
    card = await of_mode(reading, "blind")
    await post(reading, "verdict", review=card, decision="deny")
    before = reading.rows(t.verdicts)
    await post(reading, "go-on", review=card, decision="deny", category="")
    assert reading.rows(t.verdicts) == before


# --- whose card it is ------------------------------------------------------------------------------


async def test_two_people_never_hold_one_card(reading: Stage) -> None:
    for number in range(4):
        await reading.decide(actor=f"actor-{number}")
    held = [shown(await take(reading, who)) for who in (ONE, OTHER, ONE, OTHER)]
    assert None not in held
    assert len(set(held)) == 4
    assert shown(await take(reading, ONE)) is None
    refused = await post(reading, "take", OTHER, turn_to=str(held[0]))
    assert refused.status_code == 409
    assert "somebody else holds" in refused.text.lower()


@pytest.mark.parametrize("act", ["take", "renew", "verdict"])
async def test_what_cannot_be_kept_is_named(any_stage: Stage, act: str) -> None:
    refused = await post(any_stage, act, review="a\x00b", decision="allow")
    assert (refused.status_code, "NUL" in refused.text) == (422, True)


async def test_a_reload_resumes_the_card_in_hand(reading: Stage) -> None:
    await reading.decide()
    held = shown(await take(reading))
    assert shown((await reading.call("GET", "/reviews", who=ONE)).text) == held


async def test_what_is_past_its_time_is_in_nobodys_hand(reading: Stage) -> None:
    await reading.enter("write", Phase.ADVISORY)
    await reading.decide("write", legacy="require_attestation")
    assert shown(await take(reading)) is not None
    reading.clock.passes(minutes=8)
    await post(reading, "renew", review=str(shown((await reading.call("GET", "/reviews", who=ONE)).text)))
    reading.clock.passes(minutes=8)  # the caller waits for 15
    assert shown((await reading.call("GET", "/reviews", who=ONE)).text) is None


async def test_looking_at_the_page_claims_nothing(reading: Stage) -> None:
    decision = await reading.decide()
    await reading.call("GET", "/reviews", who=ONE)
    ahead = await reading.call("GET", "/reviews/next", who=ONE, params={"after": ""})
    review = reading.review(decision["id"])
    assert review is not None
    assert ahead.headers["X-Review"] == review["id"]
    assert review["claimed_by"] is None


async def test_an_open_card_stays_its_holders(reading: Stage) -> None:
    await reading.decide()
    held = str(shown(await take(reading)))
    for _ in range(3):
        reading.clock.passes(minutes=8)
        assert (await post(reading, "renew", review=held)).status_code == 200
    assert shown(await take(reading, OTHER)) is None
    reading.clock.passes(minutes=11)
    assert shown(await take(reading, OTHER)) == held
    ended = await post(reading, "renew", review=held)
    assert (ended.status_code, "somebody else holds" in ended.text.lower()) == (409, True)


async def test_the_time_to_a_verdict_is_from_the_first_claim_on(reading: Stage) -> None:
    await reading.decide()
    began_us = reading.services.now_us()
    held = str(shown(await take(reading)))
    reading.clock.passes(minutes=8)
    await post(reading, "renew", review=held)
    await post(reading, "verdict", review=held, decision="allow")
    with reading.database.read() as connection:
        assert connection.execute(select(t.verdicts.c.claimed_us)).scalar_one() == began_us


async def test_one_person_holds_so_many_and_no_more(reading: Stage) -> None:
    for number in range(7):
        await reading.decide(actor=f"actor-{number}")
    for _ in range(5):
        await take(reading)
    refused = await post(reading, "take")
    assert (refused.status_code, "judge or skip" in refused.text) == (409, True)


async def test_what_is_in_hand_comes_before_what_is_new(reading: Stage) -> None:
    for number in range(4):
        await reading.decide(actor=f"actor-{number}")
    first, second = str(shown(await take(reading))), str(shown(await take(reading)))
    ahead = await reading.call("GET", "/reviews/next", who=ONE, params={"after": second})
    assert ahead.headers["X-Review"] == first
    assert shown((await post(reading, "skip", review=second)).text) == first


async def test_nobody_is_offered_their_own_situation(reading: Stage) -> None:
    await reading.decide(actor="rita")  # the reviewer
    assert shown(await take(reading, ONE)) is None
    assert (await reading.call("GET", "/reviews/next", who=ONE, params={"after": ""})).status_code == 204
    assert shown(await take(reading, OTHER)) is not None


async def test_a_waiting_caller_comes_first(reading: Stage) -> None:
    reported = await reading.decide(actor="bob")
    await reading.call("POST", f"/v1/decisions/{reported['id']}/report", {"decision": "deny"}, who="caller")
    await reading.enter("write", Phase.ADVISORY)
    waiting = await reading.decide("write", legacy="require_attestation")
    assert shown(await take(reading)) == waiting["review"]["id"]


# --- skip, flag, undo ------------------------------------------------------------------------------


async def test_skip_brings_it_back_later_and_gives_it_to_others_at_once(reading: Stage) -> None:
    await reading.decide()
    held = str(shown(await take(reading)))
    assert shown((await post(reading, "skip", review=held)).text) is None
    assert shown(await take(reading)) is None
    assert shown(await take(reading, OTHER)) == held
    await post(reading, "skip", OTHER, review=held)
    reading.clock.passes(minutes=61)
    assert shown(await take(reading)) == held


async def test_undo_restores(reading: Stage) -> None:
    card = await of_mode(reading, "assisted")
    before = reading.evidence("read").totals
    await post(reading, "verdict", review=card, decision="deny")
    text = (await post(reading, "undo")).text
    assert (shown(text), 'data-state="open"' in text) == (card, True)
    assert {key: n for key, n in reading.evidence("read").totals.items() if n} == dict(before)
    again = await post(reading, "undo")
    assert (again.status_code, "no verdict that stands" in again.text) == (409, True)


async def test_a_verdict_given_twice_counts_once(reading: Stage) -> None:
    card = await of_mode(reading, "blind")
    await post(reading, "verdict", review=card, decision="deny")
    assert (await post(reading, "verdict", review=card, decision="allow")).status_code == 409
    assert reading.rows(t.verdicts) == 1


async def test_what_is_flagged_is_listed_with_its_note_until_an_operator_settles_it(reading: Stage) -> None:
    await reading.decide()
    held = str(shown(await take(reading)))
    await post(reading, "flag", review=held, note="the actor looks made up")
    listed = (await reading.call("GET", "/reviews?flagged=1", who="operator")).text
    assert "the actor looks made up" in listed
    assert "the actor looks made up" in (await reading.call("GET", "/reviews?flagged=1", who=ONE)).text
    assert "the actor looks made up" not in (await reading.call("GET", "/reviews?flagged=1", who=OTHER)).text
    await reading.call("POST", f"/reviews/{held}/settle", who="operator")
    assert "Nothing is flagged" in (await reading.call("GET", "/reviews?flagged=1", who="operator")).text


async def test_the_address_says_which_reviews_are_wanted(reading: Stage) -> None:
    await reading.decide()
    await reading.enter("write", Phase.ADVISORY)
    waiting = await reading.decide("write", legacy="require_attestation")
    assert shown(await take(reading, rollout="deploy")) is None
    assert shown(await take(reading, flagged="1")) is None
    assert shown(await take(reading, rollout="write", kind="binding")) == waiting["review"]["id"]
    assert (await reading.call("GET", "/reviews?kind=none", who=ONE)).status_code == 422


async def test_a_filter_wins_over_what_is_in_hand(reading: Stage) -> None:
    await reading.enter("write", Phase.ADVISORY)
    await reading.decide()
    ordinary = str(shown(await take(reading)))
    waiting = (await reading.decide("write", legacy="require_attestation"))["review"]["id"]
    page = (await reading.call("GET", "/reviews?kind=binding", who=ONE)).text
    assert shown(page) is None
    assert shown(await take(reading, kind="binding")) == waiting
    assert shown((await reading.call("GET", "/reviews?kind=binding", who=ONE)).text) == waiting
    assert shown((await reading.call("GET", "/reviews?rollout=read", who=ONE)).text) == ordinary
    after = {"after": waiting, "kind": "binding"}
    assert (await reading.call("GET", "/reviews/next", who=ONE, params=after)).status_code == 204
    told = await post(reading, "skip", review=ordinary, kind="binding")
    assert shown(told.text) == waiting


async def test_a_skipped_caller_comes_back_after_a_minute_or_when_nothing_else_waits(reading: Stage) -> None:
    await reading.enter("write", Phase.ADVISORY)
    waiting = (await reading.decide("write", legacy="require_attestation"))["review"]["id"]
    await reading.decide()
    assert shown(await take(reading)) == waiting
    ordinary = str(shown((await post(reading, "skip", review=waiting)).text))
    assert ordinary not in ("None", waiting)
    assert shown((await post(reading, "skip", review=ordinary)).text) == waiting
    reading.clock.passes(minutes=1)
    assert reading.services.desk.pace(reading.principal(OTHER))["caller"] is None  # it is held
    await post(reading, "skip", review=waiting)
    assert reading.services.desk.pace(reading.principal(ONE))["caller"] is None
    reading.clock.passes(minutes=2)
    assert shown((await post(reading, "skip", review=ordinary)).text) == waiting


async def test_a_caller_who_begins_to_wait_is_announced_beside_an_open_card(reading: Stage) -> None:
    await reading.enter("write", Phase.ADVISORY)
    await reading.decide()
    ordinary = shown(await take(reading))
    assert "A caller waits" not in (await reading.call("GET", "/reviews/pace", who=ONE)).text
    waiting = (await reading.decide("write", legacy="require_attestation"))["review"]["id"]
    text = (await reading.call("GET", "/reviews/pace", who=ONE)).text
    assert re.search(rf'value="{waiting}"[^>]*data-key="w"', text)
    assert shown((await reading.call("GET", "/reviews", who=ONE)).text) == ordinary
    assert shown(await take(reading, turn_to=waiting)) == waiting
    assert "A caller waits" not in (await reading.call("GET", "/reviews/pace", who=ONE)).text


async def test_whoever_took_a_blind_verdict_back_sees_the_models_answer(reading: Stage) -> None:
    card = await of_mode(reading, "blind")
    assert "Hidden until your verdict" in (await reading.call("GET", "/reviews", who=ONE)).text
    await post(reading, "verdict", review=card, decision="deny")
    text = (await post(reading, "undo")).text
    assert ("LLM recommends" in text, "Hidden until your verdict" in text) == (True, False)
    await post(reading, "skip", review=card)
    assert "Hidden until your verdict" in await take(reading, OTHER, turn_to=card)


async def test_undo_names_what_it_undoes(reading: Stage) -> None:
    card = await of_mode(reading, "assisted")
    assert re.search(r'data-key="u"[^>]* disabled', (await reading.call("GET", "/reviews", who=ONE)).text)
    text = (await post(reading, "verdict", review=card, decision="deny")).text
    assert "undo: deny, read" in text


# --- several people --------------------------------------------------------------------------------


async def test_a_third_person_decides_a_conflict(doubled: Stage) -> None:
    await doubled.decide()
    card = str(shown(await take(doubled, ONE)))
    await post(doubled, "verdict", ONE, review=card, decision="deny")
    text = await take(doubled, OTHER)
    assert (shown(text), "second opinion" in text) == (card, True)
    await post(doubled, "verdict", OTHER, review=card, decision="allow")
    text = await take(doubled, "admin")
    assert (shown(text), "Two people differ" in text, "LLM recommends" in text) == (card, True, False)
    await post(doubled, "verdict", "admin", review=card, decision="allow")
    (judged,) = doubled.queue("judged")
    assert (judged["conflict"], doubled.evidence("read").wrong_allows) == (True, 0)


async def test_whoever_takes_a_second_verdict_back_leaves_the_card_to_others(doubled: Stage) -> None:
    await doubled.decide()
    card = str(shown(await take(doubled, ONE)))
    await post(doubled, "verdict", ONE, review=card, decision="deny")
    await take(doubled, OTHER)
    await post(doubled, "verdict", OTHER, review=card, decision="deny")
    text = (await post(doubled, "undo", OTHER)).text
    assert (shown(text), "Somebody else judges it now" in text) == (None, True)


async def test_the_caller_who_waits_is_told_by_the_verdict_itself(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.stories._LOOK_AGAIN_S", 3_600.0)  # nobody finds it by looking again
    await stage.enter("write", Phase.ADVISORY)
    decision = await stage.decide("write", legacy="require_attestation")
    held = str(shown(await take(stage)))
    path = f"/v1/decisions/{decision['id']}?wait_s=60"
    waiting = asyncio.create_task(stage.call("GET", path, who="caller"))
    await asyncio.wait({waiting}, timeout=0.05)
    assert not waiting.done()
    await post(stage, "verdict", review=held, decision="allow")
    told = (await asyncio.wait_for(waiting, 5)).json()
    assert (told["decision"], told["final"]) == ("allow", True)


# --- pace ------------------------------------------------------------------------------------------


async def test_the_pace_is_ones_own(reading: Stage) -> None:
    for number in range(3):
        await reading.decide(actor=f"actor-{number}")
    for decision in ("allow", "deny"):
        await post(reading, "verdict", review=str(shown(await take(reading))), decision=decision)
    text = (await reading.call("GET", "/reviews/pace", who=ONE)).text
    assert "2 judged" in text
    assert "0 judged" in (await reading.call("GET", "/reviews/pace", who=OTHER)).text
    reading.clock.passes(hours=2)
    pace = reading.services.desk.pace(reading.principal(ONE))
    assert (pace["today"], pace["hour"], pace["waiting"]["drawn"]) == (2, 0, 1)
    assert sum(pace["agreement"][mode]["n"] for mode in ("blind", "assisted")) == 2


async def test_how_content_one_is_is_asked_once_a_day(reading: Stage) -> None:
    await reading.decide()
    await post(reading, "verdict", review=str(shown(await take(reading))), decision="allow")
    question = "How much does the model help you?"
    assert question in (await reading.call("GET", "/reviews/pace", who=ONE)).text
    told = await post(reading, "satisfaction", score="4", comment="")
    assert (told.status_code, question in told.text) == (200, False)
    assert reading.services.satisfaction.of(days=1)["mean"] == 4
    assert (await post(reading, "satisfaction", score="many")).status_code == 422


async def test_a_reviewer_sees_no_lever_of_a_rollout(reading: Stage) -> None:
    await of_mode(reading, "assisted")
    text = (await reading.call("GET", "/reviews", who=ONE)).text
    assert not re.search(r"[Pp]romote|[Rr]oll back", text)
