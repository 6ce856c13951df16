"""Does an open page hear what happens, nothing that its reader may not see, and does it let go?"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from app.domain.decision import Decision
from app.domain.phase import Phase
from app.services.notices import Notices
from app.services.verdicts import Verdict
from app.services.watch import Watch
from app.web.console.live import news
from tests.services.plane import Stage
from tests.web.console.browsing import Browser, invited

Event = tuple[str, dict[str, Any]]


async def _always() -> bool:
    return True


async def _until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  # other tasks of this loop bring it about
            await asyncio.sleep(0)


async def _open(stage: Stage, who: str) -> asyncio.Task[httpx.Response]:
    line = asyncio.create_task(stage.call("GET", "/live", who=who))
    await _until(lambda: stage.services.notices.followers)
    return line


async def _heard(stage: Stage, line: asyncio.Task[httpx.Response]) -> list[Event]:
    """Everything that came before the server ended."""
    stage.services.notices.close()
    events: list[Event] = []
    for block in (await line).text.split("\r\n\r\n"):
        lines = dict(each.split(": ", 1) for each in block.splitlines() if ": " in each)
        if "event" in lines:
            events.append((lines["event"], json.loads(lines["data"])))
    return events


async def test_a_rollback_is_told_with_its_reason_to_whoever_sees_rollouts(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    line = await _open(stage, "reviewer")
    await stage.services.levers.roll_back("read", reason="it errs\u202e", by=stage.principal("operator"))
    events = await _heard(stage, line)
    about = next(about for name, about in events if name == "rollout")
    assert about["name"] == "read"
    assert "operator rolled read back to advisory" in about["sentence"]
    assert "it errs[U+202E]" in about["sentence"]
    assert about["alarm"] is False


async def test_a_caller_hears_that_but_not_why(stage: Stage) -> None:
    await stage.enter("read", Phase.ENFORCED)
    line = await _open(stage, "caller")
    await stage.services.levers.roll_back("read", reason="a secret", by=stage.principal("operator"))
    events = await _heard(stage, line)
    assert [name for name, _ in events] == ["rollout"]
    assert {str(about) for _, about in events} == {"{}"}


async def test_the_kill_switch_is_news_of_the_plane(stage: Stage) -> None:
    line = await _open(stage, "operator")
    await stage.services.levers.kill(engaged=True, reason="smoke", by=stage.principal("operator"))
    events = await _heard(stage, line)
    assert [name for name, _ in events] == ["plane"]
    assert "smoke" in events[0][1]["sentence"]


async def test_a_verdict_says_only_that_the_queue_has_changed(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    asked = await stage.decide(legacy="require_attestation", model="deny")
    line = await _open(stage, "reviewer")
    await stage.judge(asked["id"], "deny")
    assert ("review", {}) in await _heard(stage, line)


async def test_a_stranger_follows_nothing(stage: Stage) -> None:
    answer = await stage.call("GET", "/live", who=None)
    assert answer.status_code == 303
    assert stage.services.notices.followers == 0


async def test_a_page_that_goes_away_is_forgotten(stage: Stage) -> None:
    gone, sent = asyncio.Event(), []

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    key = f"Bearer {stage.keys['auditor'][1]}".encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/live",
        "raw_path": b"/live",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"authorization", key)],
        "client": ("127.0.0.1", 1),
        "server": ("plane", 80),
    }
    line = asyncio.create_task(stage.application(scope, receive, send))
    await _until(lambda: stage.services.notices.followers)
    gone.set()
    await asyncio.wait_for(line, 5)
    await _until(lambda: not stage.services.notices.followers)
    assert sent[0]["status"] == 200


async def test_a_line_ticks_while_nothing_happens_and_after_it_did() -> None:
    notices = Notices()
    line = news(notices, lambda kind, body: ("review", body) if kind else None, may=_always, tick_s=0.001)
    assert (await anext(line)).event == "tick"
    waiting = asyncio.ensure_future(anext(line))
    await asyncio.sleep(0)
    notices.publish("review", {})
    names = [(await waiting).event, (await anext(line)).event]
    assert "tick" in names
    await line.aclose()
    assert notices.followers == 0


async def test_a_line_ends_in_time_so_that_the_reader_is_asked_again() -> None:
    notices = Notices()
    line = news(notices, lambda *_: None, may=_always, tick_s=0.001, line_s=0.0)
    assert [each async for each in line] == []
    assert notices.followers == 0


@pytest.mark.parametrize("act", ["disabled", "signed out", "key revoked"])
async def test_a_line_ends_soon_after_its_reader_may_see_no_more(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    assert news.__kwdefaults__ is not None
    monkeypatch.setitem(news.__kwdefaults__, "ask_s", 0.0)
    notices, by, browser = stage.services.notices, stage.principal("admin"), Browser(stage)
    if act == "key revoked":
        line = await _open(stage, "auditor")
    else:
        await browser.send(await invited(stage))
        line = asyncio.create_task(browser.see("/live"))
        await _until(lambda: notices.followers)
    if act == "disabled":
        await stage.services.users.disable("ada", by=by)
    elif act == "signed out":
        await browser.pull("/sign-out")
    else:
        await stage.services.administration.revoke_key(stage.principal("auditor").key_id, by=by)
    notices.publish("plane", {})
    assert "event:" not in (await asyncio.wait_for(line, 5)).text
    assert not notices.closed


async def test_a_line_goes_on_while_its_reader_may_see(stage: Stage) -> None:
    said = iter([True, False])

    async def may() -> bool:
        return next(said)

    notices = stage.services.notices
    line = news(notices, lambda kind, body: (kind, body), may=may, ask_s=0.0)
    first = asyncio.ensure_future(anext(line))
    await _until(lambda: notices.followers)
    notices.publish("review", {})
    notices.publish("plane", {})
    assert (await first).event == "review"
    assert [each async for each in line] == []


async def _news(stage: Stage, watch: Watch, act: Awaitable[object]) -> list[Event]:
    """What a follower hears here, once this instance has read the plane, of what another one does."""
    follower = await stage.told(stage.services.notices.follow(), 1)
    await watch.look()
    await act
    stage.services.plane.refresh()
    await watch.look()
    return await asyncio.wait_for(follower, 5)


async def test_what_another_instance_does_is_heard_here_too(stage: Stage) -> None:
    services = stage.services
    elsewhere = replace(services.levers, notices=Notices())
    act = elsewhere.hold("read", reason="lunch", by=stage.principal("operator"))
    [(kind, body)] = await _news(stage, Watch(services.plane, services.notices), act)
    assert (kind, body["rollout"], body["reason"]) == ("transition", "read", "lunch")


async def test_a_verdict_on_another_instance_is_heard_here_too(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    asked, services = await stage.decide(legacy="require_attestation", model="deny"), stage.services
    review = stage.review(asked["id"])
    assert review is not None
    elsewhere = replace(services.reviews, notices=Notices())
    act = elsewhere.judge(review["id"], Verdict(Decision.DENY), stage.principal("reviewer"))
    news_here = await _news(stage, Watch(services.plane, services.notices), act)
    assert news_here == [("review", {})]


async def test_a_review_that_opens_is_news_of_the_queue(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    watch = Watch(stage.services.plane, stage.services.notices)
    act = stage.decide(legacy="require_attestation", model="deny")
    assert await _news(stage, watch, act) == [("review", {})]


async def test_what_was_told_here_is_told_once(stage: Stage) -> None:
    services = stage.services
    watch = Watch(services.plane, services.notices)
    await watch.look()
    follower = await stage.told(services.notices.follow(), 2)
    await services.levers.hold("read", reason="lunch", by=stage.principal("operator"))
    await watch.look()
    await services.levers.resume("read", reason="back", by=stage.principal("operator"))
    told = await asyncio.wait_for(follower, 5)
    assert [body["kind"] for _, body in told] == ["hold", "resume"]


async def test_the_alarm_is_a_part_of_its_own(stage: Stage) -> None:
    assert "engaged" not in (await stage.call("GET", "/live/alarm")).text
    await stage.services.levers.kill(engaged=True, reason="smoke", by=stage.principal("operator"))
    assert "The kill switch is engaged" in (await stage.call("GET", "/live/alarm")).text
