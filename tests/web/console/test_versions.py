"""Do the pages of versions say what one is, where it is used, what changed, and let people try it?"""

import json
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.store.database import Database
from tests.services.plane import FakeModel, Stage, opened
from tests.web.test_versions import PROMPT, REVIEWED, declared

HTMX = {"HX-Request": "true"}


@pytest.fixture
async def two(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[Stage]:
    """A server that has two versions loaded, with files that further ones may name."""
    async with opened(
        sqlite_database, tmp_path, rollouts=REVIEWED, others=[FakeModel(version_id="fake-2")]
    ) as stage:
        policies = stage.files.policies_dir
        for directory in ("versions", "prompts"):
            (policies / directory).mkdir()
        (policies / "prompts" / "policy.md").write_text(PROMPT, encoding="utf-8")
        (policies / "versions" / "adapter.gguf").write_bytes(b"adapter")
        yield stage


async def see(stage: Stage, path: str, *, who: str = "operator") -> str:
    response = await stage.call("GET", path, who=who)
    assert response.status_code == 200, response.text
    return " ".join(unescape(response.text).split())


async def register(stage: Stage, name: str, **changes: Any) -> None:
    response = await stage.call("POST", "/v1/versions", declared(name, **changes))
    assert response.status_code == 200, response.text


async def send(stage: Stage, path: str, who: str = "operator", **fields: str) -> httpx.Response:
    return await stage.call("POST", path, who=who, data=fields, headers=HTMX)


async def test_each_version_says_where_it_is_used_and_how_it_is(two: Stage) -> None:
    await send(two, "/versions/fake-2/candidate", rollout="read", mode="both", reason="try it")
    page = await see(two, "/versions")
    first, second = page.index('href="/versions/fake-1"'), page.index('href="/versions/fake-2"')
    assert first < second
    assert '<span class="role active">active</span>' in page[first:second]
    assert '<span class="role candidate">candidate</span>' in page[second:]
    assert "f" * 64 in page
    assert page.count('<span class="outcome ok">ready</span>') == 2


async def test_a_version_that_nobody_loaded_says_so(two: Stage) -> None:
    await register(two, "fresh-1")
    page = await see(two, "/versions")
    assert "not loaded" in page
    assert "no rollout" in page


async def test_a_broken_model_says_what_is_wrong(two: Stage) -> None:
    two.model.is_ready, two.model.circuit_open = False, True
    page = await see(two, "/versions")
    assert '<span class="outcome error">down</span>' in page
    assert "circuit open" in page


async def test_a_page_shows_the_prompt_around_the_situation_as_text(two: Stage) -> None:
    hostile = f"<script>alert(1)</script>\u202e{PROMPT}"
    (two.files.policies_dir / "prompts" / "other.md").write_text(hostile, encoding="utf-8")
    await register(two, "fresh-1", prompt="prompts/other.md")
    response = await two.call("GET", "/versions/fresh-1")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;[U+202E]" in response.text
    assert "⟨ the situation" in response.text


async def test_what_changed_from_the_parent_is_said_in_words(two: Stage) -> None:
    (two.files.policies_dir / "prompts" / "other.md").write_text(
        PROMPT.replace("Decide: allow", "Judge: allow"), encoding="utf-8"
    )
    await register(two, "old-1")
    await register(two, "new-1", parent="old-1", prompt="prompts/other.md", reasoning="both")
    await register(two, "newest-1", parent="new-1", prompt="prompts/other.md")
    page = await see(two, "/versions/new-1")
    assert '<span class="word">removed</span>Decide: allow' in page
    assert '<span class="word">added</span>Judge: allow' in page
    (row,) = [row for row in page.split("<tr") if ">reasoning<" in row]
    assert 'class="differs"' in row
    assert "both" in row
    assert "attributed" in row
    newest = await see(two, "/versions/newest-1")
    assert newest.index('<li><a href="/versions/new-1"') < newest.index('<li><a href="/versions/old-1"')
    assert "Word for word the prompt of new-1" in newest


async def test_a_prompt_that_changed_on_disk_is_not_shown_as_the_versions(two: Stage) -> None:
    await register(two, "fresh-1")
    (two.files.policies_dir / "prompts" / "policy.md").write_text(f"Otherwise. {PROMPT}", encoding="utf-8")
    page = await see(two, "/versions/fresh-1")
    assert "changed since fresh-1 was registered" in page
    assert "Otherwise." not in page


async def test_a_parent_that_is_not_known_here_is_still_named(two: Stage) -> None:
    await register(two, "fresh-1", parent="gone-1")
    assert "gone-1" in await see(two, "/versions/fresh-1")


async def test_a_candidate_is_tried_and_then_compared_in_pairs(two: Stage) -> None:
    tried = await send(two, "/versions/fake-2/candidate", rollout="read", mode="both", reason="try it")
    assert tried.headers["HX-Redirect"] == "/rollouts/read"
    assert two.state("read").candidate == "fake-2"
    page = await see(two, "/versions")
    assert 'aria-label="Pairs of read"' in page
    assert "Gate to version" in page
    assert 'value="read"' not in await see(two, "/versions/fake-2")  # offered where it may be tried alone


async def test_a_split_has_its_share_of_the_actors(two: Stage) -> None:
    await send(two, "/versions/fake-2/candidate", rollout="read", mode="split", share="0.25", reason="try it")
    assert two.state("read").candidate_share == 0.25


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mode": "split", "share": "many"}, "Share: must be a number"),
        ({"mode": "split", "share": "1"}, "Share: must be a share"),
        ({"mode": "split", "share": ""}, "Share: must be a share"),
        ({"reason": " "}, "Reason: must be a non-empty text"),
        ({"rollout": "none"}, "No rollout"),
    ],
)
async def test_a_wrong_wish_says_what_mends_it(two: Stage, fields: dict[str, str], said: str) -> None:
    wish = {"rollout": "read", "mode": "both", "reason": "try it", **fields}
    response = await send(two, "/versions/fake-2/candidate", **wish)
    assert 400 <= response.status_code < 500
    assert said in unescape(response.text)
    assert two.state("read").candidate is None


async def test_a_version_is_registered_from_its_file(two: Stage) -> None:
    path = two.files.policies_dir / "versions" / "late.yaml"
    path.write_text(json.dumps(declared("late-1")), encoding="utf-8")
    assert "Not registered yet: late-1." in await see(two, "/versions")
    assert (await send(two, "/versions", id=" late-1 ")).headers["HX-Redirect"] == "/versions/late-1"
    assert "late-1" in await see(two, "/versions/late-1")


async def test_a_broken_file_is_named_where_one_would_register_it(two: Stage) -> None:
    (two.files.policies_dir / "versions" / "broken.yaml").write_text("id: [", encoding="utf-8")
    assert "broken.yaml" in await see(two, "/versions")


async def test_who_may_not_steer_is_offered_no_lever(two: Stage) -> None:
    assert "/versions/fake-2/candidate" in await see(two, "/versions/fake-2", who="operator")
    assert "/versions/fake-2/candidate" not in await see(two, "/versions/fake-2", who="auditor")
    assert 'hx-post="/versions"' not in await see(two, "/versions", who="approver")
