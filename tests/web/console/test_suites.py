"""Do the pages of suites say what is asked, how versions did, and run a validation that is kept?"""

from html import unescape

import httpx
import pytest

from app.store.tables import validations
from tests.services.plane import VERSION, Stage
from tests.services.test_validate import suite

HTMX = {"HX-Request": "true"}


async def see(stage: Stage, path: str, *, who: str = "operator") -> str:
    response = await stage.call("GET", path, who=who)
    assert response.status_code == 200, response.text
    return " ".join(unescape(response.text).split())


async def run(stage: Stage, version: str = VERSION, **fields: str) -> httpx.Response:
    return await stage.call(
        "POST", "/suites/run", who="approver", data={"version": version, **fields}, headers=HTMX
    )


async def test_without_suites_a_page_says_where_they_go(stage: Stage) -> None:
    assert "policies/suites" in await see(stage, "/suites")


async def test_a_run_shows_its_failures_with_what_the_model_said(stage: Stage) -> None:
    suite(stage, "allow", "deny", "allow", expected="deny")
    response = await run(stage)
    page = " ".join(unescape(response.text).split())
    assert response.status_code == 200
    assert "1 of 3 passed" in page
    assert "2 wrong allows" in page
    assert "mine-0" in page
    assert "90.0 %" in page  # the probability of what it said
    assert "a wrong allow" in page
    assert "<html" not in page  # a part, for the page that asked
    assert stage.rows(validations) == 1


async def test_the_matrix_has_the_newest_result_of_each_suite(stage: Stage) -> None:
    suite(stage, "allow", "deny", name="one")
    suite(stage, "allow", "allow", "deny", name="two")
    await run(stage)
    suite(stage, "allow", "allow", name="one")
    await run(stage, suite="one")
    page = await see(stage, "/suites")
    assert "2 of 2" in page
    assert "2 of 3" in page
    assert page.count("the suite has changed since") == 1  # the run of both, whose other file is another now


async def test_a_suite_shows_each_situation_with_its_answer_beside(stage: Stage) -> None:
    suite(stage, "allow", "deny")
    assert "No version was asked these yet" in await see(stage, "/suites/mine")
    await run(stage)
    page = await see(stage, "/suites/mine")
    assert "passed, 90 % sure" in page
    assert "failed, 90 % sure" in page
    assert "Because." in page
    failed = await see(stage, "/suites/mine?failed=true")
    assert "mine-1" in failed
    assert "mine-0" not in failed
    assert "None of them fits" in await see(stage, "/suites/mine?tag=hard")


async def test_a_broken_suite_is_named_and_hides_no_other(stage: Stage) -> None:
    suite(stage, "allow")
    (stage.files.policies_dir / "suites" / "broken.jsonl").write_text("{", encoding="utf-8")
    page = await see(stage, "/suites")
    assert "broken.jsonl:1" in page
    assert "1 situations" in page


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"version": "none"}, "No version 'none'"),
        ({"suite": "none"}, "No suite 'none'"),
        ({"against": VERSION}, f"{VERSION} was not validated on these suites"),
    ],
)
async def test_a_run_that_cannot_be_says_why(stage: Stage, fields: dict[str, str], said: str) -> None:
    suite(stage, "allow")
    response = await run(stage, **fields)
    assert 400 <= response.status_code < 500
    assert said in unescape(response.text)


async def test_a_model_that_is_down_says_so_instead_of_failing_every_situation(stage: Stage) -> None:
    suite(stage, "allow")
    stage.model.is_ready = False
    response = await run(stage)
    assert response.status_code == 409
    assert "its model is down" in response.text
    assert f"phasegate validate {VERSION}" in response.text
    assert stage.rows(validations) == 0


async def test_a_validation_is_kept_at_an_address_of_its_own(stage: Stage) -> None:
    suite(stage, "allow", "deny")
    await run(stage)
    await run(stage, against=VERSION)
    newest = stage.services.validations.of(VERSION)[0]["id"]
    page = await see(stage, f"/validations/{newest}", who="auditor")
    assert "1 of 2 passed" in page
    assert "0 better" in page
    assert (await stage.call("GET", "/validations/none")).status_code == 404
    assert f"/validations/{newest}" in await see(stage, f"/versions/{VERSION}")


async def test_an_auditor_sees_results_and_runs_nothing(stage: Stage) -> None:
    suite(stage, "allow")
    assert "/suites/run" not in await see(stage, "/suites", who="auditor")
