"""Does the page of the history show who did what and why, and does a file of it stay a file?"""

import csv
import io
import json
from html import unescape

import pytest
from sqlalchemy import text

from app.domain.phase import Phase
from tests.services.plane import Stage
from tests.services.test_approvals import advised, approve
from tests.services.test_freezes import freeze
from tests.services.test_levers import roll_back

__all__ = ["advised"]


async def seen(stage: Stage, path: str = "/audit", *, who: str = "auditor") -> str:
    response = await stage.call("GET", path, who=who)
    assert response.status_code == 200, response.text
    return unescape(response.text)


async def exported(stage: Stage, path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(await seen(stage, path))))


@pytest.fixture
async def lived(stage: Stage) -> Stage:
    """A freeze by hand, and a phase that was entered and left."""
    await stage.enter("read", Phase.ADVISORY)
    await freeze(stage, rollout="write")
    await roll_back(stage, "read")
    return stage


async def test_an_empty_history_says_what_will_stand_there(stage: Stage) -> None:
    assert "The first promotion, hold or freeze shows up here" in await seen(stage)


async def test_every_transition_has_its_sentence_its_name_and_its_rollout(lived: Stage) -> None:
    page = await seen(lived)
    assert "operator rolled read back to shadow: it went wrong" in page
    assert "operator declared a freeze of" in page
    assert 'href="/rollouts/read"' in page
    assert f'href="/audit?who={lived.principal("operator").key_id}"' in page


@pytest.mark.parametrize(
    ("asked", "kinds"),
    [
        ("kind=rollback", ["rollback"]),
        ("rollout=write", ["freeze"]),
        ("who=operator", ["rollback", "freeze"]),
        ("who=nobody", []),
        ("automatic=true", []),
        ("automatic=false&rollout=read", ["rollback", "promote"]),
        ("since=2027-01-15", ["rollback", "freeze", "promote"]),
        ("until=2027-01-15", []),
    ],
)
async def test_the_address_says_which_transitions(lived: Stage, asked: str, kinds: list[str]) -> None:
    assert [row["kind"] for row in await exported(lived, f"/audit.csv?{asked}")] == kinds
    if not kinds:
        assert "Nothing in the history is like that" in await seen(lived, f"/audit?{asked}")


async def test_an_empty_field_of_the_form_leaves_the_address(lived: Stage) -> None:
    response = await lived.call("GET", "/audit?rollout=&kind=rollback&who=", who="auditor")
    assert (response.status_code, response.headers["Location"]) == (303, "/audit?kind=rollback")


@pytest.mark.parametrize(
    ("asked", "said"), [("since=yesterday", "must be a time"), ("automatic=no", "true, false")]
)
async def test_a_filter_that_is_none_is_said_to_be(lived: Stage, asked: str, said: str) -> None:
    for path in ("/audit", "/audit.csv"):
        response = await lived.call("GET", f"{path}?{asked}", who="auditor")
        assert response.status_code == 422, path
        assert said in response.text


async def test_the_last_full_page_leads_no_further(stage: Stage) -> None:
    for number in range(50):
        await freeze(stage, reason=f"day {number}.")
    assert 'rel="next"' not in await seen(stage)


async def test_older_pages_go_on_where_the_newer_ended(stage: Stage) -> None:
    for number in range(51):
        await freeze(stage, reason=f"day {number}.")
    first = await seen(stage)
    assert "day 50." in first
    assert ": day 0." not in first
    (older,) = [part.split('"')[0] for part in first.split('rel="next" href="')[1:]]
    last = await seen(stage, older)
    assert ": day 0." in last
    assert 'rel="next"' not in last
    assert len(await exported(stage, "/audit.csv")) == 51


async def test_the_evidence_of_an_approval_is_a_checklist(advised: Stage) -> None:
    await approve(advised)
    page = await seen(advised, "/audit?kind=approval")
    assert "<caption" in page
    assert "Gate to enforced" in page


async def test_other_evidence_is_told_as_facts(lived: Stage) -> None:
    page = await seen(lived, "/audit?kind=freeze")
    assert "<dt>Weekly</dt>" in page
    assert "{'" not in page


async def test_what_a_person_wrote_cannot_become_markup_or_a_formula(stage: Stage) -> None:
    await freeze(stage, reason="<b>\u202e</b>")
    await freeze(stage, reason="=1+1")
    response = await stage.call("GET", "/audit", who="auditor")
    assert "&lt;b&gt;[U+202E]&lt;/b&gt;" in response.text
    assert {row["reason"] for row in await exported(stage, "/audit.csv")} == {"<b>[U+202E]</b>", "'=1+1"}


async def test_json_lines_hold_the_whole_documents(lived: Stage) -> None:
    response = await lived.call("GET", "/audit.jsonl?kind=freeze", who="auditor")
    (line,) = response.text.splitlines()
    assert json.loads(line)["evidence"]["reason"] == "a quiet day"
    assert 'filename="audit.jsonl"' in response.headers["Content-Disposition"]


async def test_the_chain_check_names_the_heads(lived: Stage) -> None:
    response = await lived.call("POST", "/audit/verify", who="auditor")
    verified = (await lived.call("GET", "/v1/audit/verify")).json()
    assert "The chain holds" in response.text
    assert verified["heads"].keys() == {"test"}
    for head in verified["heads"].values():
        assert head in response.text


async def test_the_chain_check_says_where_it_breaks(lived: Stage) -> None:
    with lived.database.write() as connection:
        connection.execute(text("DROP TRIGGER transitions_no_update"))
        connection.execute(text("UPDATE transitions SET reason = 'another' WHERE kind = 'rollback'"))
    response = await lived.call("POST", "/audit/verify", who="auditor")
    assert "The chain is broken in 1 place" in response.text
    assert "was changed" in response.text


async def test_the_api_pages_through_the_history_by_cursor(lived: Stage) -> None:
    first = (await lived.call("GET", "/v1/audit?limit=2&automatic=false")).json()
    assert [each["kind"] for each in first["transitions"]] == ["rollback", "freeze"]
    rest = (await lived.call("GET", f"/v1/audit?limit=2&cursor={first['next_cursor']}")).json()
    assert ([each["kind"] for each in rest["transitions"]], rest["next_cursor"]) == (["promote"], None)
