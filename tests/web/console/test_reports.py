"""Can a person find, read, print and take along a report, and does it run nothing that callers wrote?"""

import hashlib
import re
from base64 import b64encode

import pytest

from tests.services.plane import Stage
from tests.services.test_reports import MARKUP, day


async def see(stage: Stage, path: str, *, who: str = "reviewer") -> str:
    response = await stage.call("GET", path, who=who)
    assert response.status_code == 200, response.text
    return response.text


async def test_what_is_kept_is_listed_and_before_that_what_comes(stage: Stage) -> None:
    assert "None is kept yet" in await see(stage, "/reports")
    stage.clock.passes(days=1)
    await stage.services.reports.keep_due()
    assert '<a href="/reports/daily?at=2027-01-15">2027-01-15</a>' in await see(stage, "/reports")


async def test_a_period_and_a_day_lead_to_their_report(stage: Stage) -> None:
    response = await stage.call("GET", "/reports?period=weekly&at=2027-01-15")
    assert (response.status_code, response.headers["Location"]) == (303, "/reports/weekly?at=2027-01-15")
    page = await see(stage, "/reports/weekly?at=2027-01-15")
    assert "Weekly report, 2027-01-11" in page
    assert "Earlier" not in page  # there was no plane before
    assert "Later" not in page
    stage.clock.passes(days=7)
    assert '<a class="button" href="/reports/weekly?at=2027-01-18">Later</a>' in await see(
        stage, "/reports/weekly?at=2027-01-15"
    )
    assert '<a class="button" href="/reports/weekly?at=2027-01-17">Earlier</a>' in await see(
        stage, "/reports/weekly"
    )


async def test_the_frame_runs_nothing_and_only_this_console_may_show_it(stage: Stage) -> None:
    await day(stage, n=2, wrong=1, actor_role=MARKUP)
    page = await see(stage, "/reports/daily?at=2027-01-15")
    (frame,) = re.findall(r"<iframe[^>]*>", page)
    assert 'sandbox=""' in frame
    assert 'title="Daily report, 2027-01-15"' in frame
    (address,) = re.findall(r'src="([^"]+)"', frame)
    response = await stage.call("GET", address, who="reviewer")
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'self'" in policy
    assert policy.endswith("sandbox")
    assert not re.search("unsafe|script-src", policy)
    assert MARKUP not in response.text
    assert "&lt;script&gt;" in response.text


async def test_the_report_wears_the_consoles_theme_and_a_saved_one_its_readers(stage: Stage) -> None:
    dark = {"Cookie": "theme=dark"}
    shown = await stage.call("GET", "/reports/daily/document", headers=dark)
    assert '<html lang="en" data-theme="dark">' in shown.text
    saved = await stage.call("GET", "/reports/daily/document?save=true", headers=dark)
    assert '<html lang="en" data-theme="auto">' in saved.text


@pytest.mark.parametrize("path", ["/reports/daily/document", "/v1/reports/daily?format=html"])
async def test_the_policy_names_the_only_style_by_its_hash(stage: Stage, path: str) -> None:
    response = await stage.call("GET", path)
    (style,) = re.findall(r"<style>(.*?)</style>", response.text, re.DOTALL)
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in response.headers["Content-Security-Policy"]
    assert " style=" not in response.text


async def test_nobody_frames_the_report_of_the_interface(stage: Stage) -> None:
    response = await stage.call("GET", "/v1/reports/daily?format=html")
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("form", "media_type"), [("html", "text/html"), ("md", "text/markdown"), ("json", "application/json")]
)
async def test_a_report_is_saved_under_its_name(stage: Stage, form: str, media_type: str) -> None:
    response = await stage.call("GET", f"/reports/daily/document?format={form}&save=true", who="approver")
    assert response.headers["Content-Type"].startswith(media_type)
    assert response.headers["Content-Disposition"] == (
        f'attachment; filename="phasegate-daily-2027-01-15.{form}"'
    )


@pytest.mark.parametrize("path", ["/reports/daily?at=yesterday", "/reports/daily?at=2100-01-01"])
async def test_a_report_that_there_cannot_be_is_a_page_that_says_why(stage: Stage, path: str) -> None:
    response = await stage.call("GET", path)
    assert response.status_code == 422
    assert "At: " in response.text
