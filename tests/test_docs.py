"""Do the pages tell the truth about commands, settings, routes and files?"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import rich_click as click

from app.cli import COMMANDS, main
from app.settings import describe, load_settings
from app.web.application import _ROUTES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

SETTINGS = {row.name: row for row in describe(load_settings({}))}


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> str:
    path: Path = request.param
    return path.read_text(encoding="utf-8")


def commands_in(text: str) -> Iterator[list[str]]:
    """The words after `phasegate` wherever it is typed as a command."""
    for match in re.finditer(r"(?:^|`)phasegate ((?:[a-z-]+ ?)+)", text, re.MULTILINE):
        yield match[1].split()


def test_every_command_on_a_page_exists(page: str) -> None:
    context = click.Context(main)
    for words in commands_in(page):
        _, command, _ = main.resolve_command(context, words[:1])
        if isinstance(command, click.Group) and len(words) > 1 and words[1] in _verbs():
            assert words[1] in command.commands, " ".join(words)


def _verbs() -> set[str]:
    """Words that are a subcommand of anything: others after a noun are names, such as `read`."""
    context = click.Context(main)
    groups = [main.resolve_command(context, [name])[1] for name in COMMANDS]
    return {verb for group in groups if isinstance(group, click.Group) for verb in group.commands}


def test_every_command_is_on_a_page() -> None:
    typed = {words[0] for page in PAGES for words in commands_in(page.read_text(encoding="utf-8"))}
    assert set(COMMANDS) - typed == set()


def test_every_setting_on_a_page_exists(page: str) -> None:
    assert set(re.findall(r"PHASEGATE_[A-Z][A-Z_]*[A-Z]", page)) <= set(SETTINGS)


def test_every_setting_is_in_the_table_with_its_default() -> None:
    text = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    for row in SETTINGS.values():
        assert f"| `{row.name}` | {row.default} | {row.what} |" in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists()


def test_every_policy_file_that_is_named_exists() -> None:
    text = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:[a-z]+/)?[a-z*]+\.(?:yaml|cedar|md))`", text)
    assert named
    for name in named:
        assert list((ROOT / "policies").glob(name)), name


def test_every_make_target_on_a_page_exists(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", page, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_route_is_on_its_page_and_every_route_on_it_exists() -> None:
    text = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    table = text[text.index("## Routes") : text.index("## Problems")]
    written = {path.partition("?")[0] for row in table.splitlines() for path in _paths(row)}
    served = {re.sub(r"\{(?:\w+_)?(\w+):\w+\}", r"{\1}", path) for route in _ROUTES for path in route.paths}
    assert written == served - {"/"}


def _paths(row: str) -> Iterator[str]:
    """Paths of one row; `/hold` after `POST /v1/rollouts/{name}/rollback` is its sibling."""
    cell = row.split("|")[1] if row.startswith("|") else ""
    stem = ""
    for path in re.findall(r"`(?:[A-Z]+ )?(/[^`]*)`", cell):
        known = path.startswith(("/v1", "/health", "/metrics", "/advisory", "/access", "/.well-known"))
        yield path if known else stem + path
        stem = path.rpartition("/")[0] if known else stem
