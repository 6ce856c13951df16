"""Does the board say where every rollout stands, and is everything stopped only by who means it?"""

import re

import pytest

from app.domain.phase import Phase
from tests.services.plane import Stage
from tests.services.test_levers import with_evidence

_PART = {"HX-Request": "true"}


def _rows(text: str) -> list[str]:
    return re.findall(r'<tr id="row-([^"]+)"', text)


async def test_the_board_shows_every_rollout_with_its_phase_and_one_short_sentence(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED, exposure=0.5)
    text = (await stage.call("GET", "/")).text
    assert sorted(_rows(text)) == ["admin", "deploy", "other", "read", "write"]
    assert "enforced 50 %" in text
    assert "not yet advisory" in text
    assert re.search(r'<a href="/rollouts/write#gate">and \d+ more</a>', text)


async def test_what_needs_somebody_comes_first_and_says_why(stage: Stage) -> None:
    await stage.enter("write", Phase.ENFORCED)
    await stage.services.levers.roll_back("write", reason="it errs\u202e", by=stage.principal("operator"))
    text = (await stage.call("GET", "/")).text
    assert _rows(text)[0] == "write"
    assert "Rolled back to advisory: it errs[U+202E]" in text


async def test_a_filter_in_the_address_leaves_what_it_names(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    assert _rows((await stage.call("GET", "/?q=REA")).text) == ["read"]
    assert _rows((await stage.call("GET", "/?phase=advisory")).text) == ["read"]
    assert "read" not in _rows((await stage.call("GET", "/?state=not_yet&phase=shadow")).text)
    nothing = (await stage.call("GET", "/?q=nosuch")).text
    assert "No rollout is like that" in nothing
    assert 'value="nosuch"' in nothing


async def test_what_htmx_asks_for_is_the_part_alone_and_keeps_its_filter(stage: Stage) -> None:
    text = (await stage.call("GET", "/?q=read", headers=_PART)).text
    assert "<html" not in text
    assert text.lstrip().startswith('<div id="board" hx-get="/?q=read"')


async def test_the_tiles_count_callers_who_wait(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    await stage.decide(legacy="require_attestation", model="deny")
    text = (await stage.call("GET", "/")).text
    assert re.search(r"<dt>Waiting callers</dt><dd>1</dd>", text)


async def test_the_kill_switch_takes_its_word_and_a_reason(stage: Stage) -> None:
    async def engage(**fields: str) -> int:
        form = {"engaged": "true", **fields}
        return (
            await stage.call("POST", "/kill-switch", data=form, headers=_PART, who="operator")
        ).status_code

    assert await engage(confirmation="yes", reason="smoke") == 422
    assert await engage(confirmation="stop", reason=" ") == 422
    assert stage.services.plane.view.kill_reason is None
    assert await engage(confirmation=" Stop ", reason="smoke") == 200
    assert stage.services.plane.view.kill_switch
    assert stage.services.plane.view.kill_reason == "smoke"


async def test_only_an_approver_releases_the_kill_switch(stage: Stage) -> None:
    await stage.services.levers.kill(engaged=True, reason="smoke", by=stage.principal("operator"))
    form = {"engaged": "false", "confirmation": "release", "reason": "no fire"}
    refused = await stage.call("POST", "/kill-switch", data=form, headers=_PART, who="operator")
    assert refused.status_code == 403
    assert "an approver" in refused.text
    released = await stage.call("POST", "/kill-switch", data=form, headers=_PART, who="approver")
    assert released.headers["HX-Redirect"] == "/"
    assert not stage.services.plane.view.kill_switch


@pytest.mark.parametrize(
    ("who", "offered"), [("operator", "Kill switch…"), ("auditor", None), ("approver", None)]
)
async def test_the_switch_is_offered_to_those_who_may(stage: Stage, who: str, offered: str | None) -> None:
    text = (await stage.call("GET", "/", who=who)).text
    assert ("Kill switch…" in text) is (offered is not None)


async def test_under_the_kill_switch_each_rollout_keeps_its_own_state_and_sentence(stage: Stage) -> None:
    await stage.enter("write", Phase.ENFORCED)
    await stage.services.levers.roll_back("write", reason="it errs", by=stage.principal("operator"))
    by_hand = stage.principal("operator")
    await stage.services.levers.hold("deploy", reason="the auditors come", by=by_hand)

    async def told() -> list[str]:
        text = (await stage.call("GET", "/")).text
        return re.findall(r'<tr id="row-.*?<span class="sentence">.*?</span>', text, re.DOTALL)

    before = await told()
    assert len(before) == 5
    await stage.services.levers.kill(engaged=True, reason="smoke", by=by_hand)
    assert await told() == before
    page = (await stage.call("GET", "/rollouts/write")).text
    assert "Rolled back to advisory: it errs" in page
    assert "an approver releases it on the board" in page


async def test_what_is_only_held_back_by_the_kill_switch_says_so(stage: Stage) -> None:
    await with_evidence(stage)
    assert 'class="ready"' in (await stage.call("GET", "/?q=read")).text
    await stage.services.levers.kill(engaged=True, reason="smoke", by=stage.principal("operator"))
    text = (await stage.call("GET", "/?q=read")).text
    assert 'class="ready"' not in text
    assert '<span class="sentence">The kill switch is engaged</span>' in text


async def test_a_tile_counts_what_is_stale_and_leads_to_it_and_is_gone_where_nothing_is(stage: Stage) -> None:
    assert "Stale rollouts" not in (await stage.call("GET", "/")).text
    await with_evidence(stage)
    await stage.looks()
    stage.clock.passes(days=8)
    await stage.looks()
    text = (await stage.call("GET", "/")).text
    assert re.search(r'<dt>Stale rollouts</dt><dd><a href="/\?state=stale">1</a>', text)
    assert _rows((await stage.call("GET", "/?state=stale")).text) == ["read"]
