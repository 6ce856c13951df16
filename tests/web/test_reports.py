"""In which forms are reports told, and is a page safe to open?"""

import re
from html.parser import HTMLParser

import pytest

from app.domain.phase import Phase
from tests.services.plane import Stage
from tests.services.test_levers import roll_back
from tests.services.test_reports import MARKUP, day


class Page(HTMLParser):
    """The tags of a page, its attributes and whether every tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, set[str]] = {}
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "rect", "line", "circle", "polyline"):  # void, or closed in themselves
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("accept", "query", "form"),
    [
        ("*/*", "", "application/json"),
        ("application/json", "", "application/json"),
        ("text/markdown", "", "text/markdown"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "", "text/html"),
        ("text/html;q=0.2, text/markdown;q=0.9", "", "text/markdown"),
        ("image/png", "", "application/json"),
        ("text/html", "?format=md", "text/markdown"),
        ("*/*", "?format=html", "text/html"),
    ],
)
async def test_the_form_is_the_callers_choice(stage: Stage, accept: str, query: str, form: str) -> None:
    response = await stage.call("GET", f"/v1/reports/daily{query}", who="auditor", headers={"Accept": accept})
    assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, form)


async def test_a_page_is_whole_and_holds_nothing_that_runs_or_is_fetched(stage: Stage) -> None:
    await stage.enter("read", Phase.ADVISORY)
    await day(stage, n=4, wrong=2, actor_role=MARKUP, details_note=MARKUP)
    await stage.call("POST", "/v1/rollouts/read/hold", {"reason": MARKUP})
    await roll_back(stage)
    response = await stage.call("GET", "/v1/reports/monthly?format=html")
    page = Page(response.text)
    assert not page.open
    assert not page.tags & {"script", "link", "img", "iframe", "object", "a", "form", "base"}
    assert not page.attributes.keys() & {"src", "href", "action", "xlink:href"}
    assert not [name for name in page.attributes if name.startswith("on")]
    assert "&lt;script&gt;" in response.text
    assert not re.search(r"url\(|@import", response.text)
    assert "default-src 'none'" in response.headers["content-security-policy"]


async def test_every_chart_says_in_words_what_it_shows(stage: Stage) -> None:
    await day(stage, n=4, wrong=1)
    text = (await stage.call("GET", "/v1/reports/monthly?format=html")).text
    charts = re.findall(r"<svg[^>]*role=\"img\"[^>]*><title>([^<]+)</title>", text)
    assert len(charts) == text.count("<svg")
    assert "read: agreement by day, now 75.0%" in charts
    assert "read: answers in the period: allow 75%, require_attestation 0%, deny 25%" in charts


async def test_callers_cannot_write_markdown(stage: Stage) -> None:
    await day(stage, n=4, wrong=2, actor_role=MARKUP)
    text = (await stage.call("GET", "/v1/reports/monthly?format=md")).text
    (line,) = [line for line in text.splitlines() if "evil.example" in line]
    assert len(re.findall(r"(?<!\\)\|", line)) == 9  # the table's own
    assert not re.search(r"(?<!\\)[<>`\[]|(?<!\\)://", line.replace("allow > deny", ""))


async def test_what_is_kept_is_listed(stage: Stage) -> None:
    stage.clock.passes(days=1)
    await stage.services.reports.keep_due()
    response = await stage.call("GET", "/v1/reports", who="approver")
    (kept,) = response.json()["reports"]
    assert kept["id"] == "daily-2027-01-15"
    found = await stage.call("GET", "/v1/reports/daily?at=2027-01-15", who="reviewer")
    assert (found.json()["id"], found.json()["stored"]) == (kept["id"], True)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/reports/yearly", 400),
        ("/v1/reports/daily?at=yesterday", 422),
        ("/v1/reports/daily?at=2100-01-01", 422),
        ("/v1/reports/daily?format=pdf", 400),
    ],
)
async def test_a_report_that_there_cannot_be_is_refused(stage: Stage, path: str, status: int) -> None:
    assert (await stage.call("GET", path)).status_code == status
