"""Do the console's files keep what its content security policy promises?"""

import hashlib
import re
from pathlib import Path

import pytest

from app.web.console.pages import HERE, STATIC

TEMPLATES = sorted((HERE / "templates").glob("*.html"))
OURS = sorted(path for path in STATIC.iterdir() if path.is_file())
VENDOR = STATIC / "vendor"
SUMS = {
    name: digest
    for digest, name in (line.split() for line in (VENDOR / "SHA256SUMS").read_text("ascii").splitlines())
}

BANNED = {
    "markup that is not escaped": r"\|\s*safe\b|\bMarkup\b|autoescape\s+false",
    "an inline style": r"<[^>]*\sstyle\s*=|<style\b",
    "an inline handler": r"<[^>]*\s(?:on[a-z]+|hx-on[^\s=]*)\s*=",
    "a script of htmx": r"hx-(?:vals|headers|config)[^=]*=\s*[\"']js:|hx-trigger\s*=\s*\"[^\"]*\[",
    "an inline script": r"<script\b(?![^>]*\ssrc=)",
    "a script without its nonce": r"<script\b(?![^>]*\snonce=\"\{\{ nonce \}\}\")",
    "an address for scripts": r"(?i)javascript:",
}
# Names of XML vocabularies, which nobody fetches.
VOCABULARIES = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml", "http://www.w3.org/1999/xlink")
# An address that a browser could fetch; behind `//` alone only where markup or style expects an address.
HOST = re.compile(r"(?:https?|wss?)://[^\s\"'`)<>]*|(?:src|href|action|url\()\s*=?\s*[\"']?//[^\s\"')]+")


def code_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("what", BANNED)
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_holds_what_a_browser_would_have_to_trust(template: Path, what: str) -> None:
    found = re.search(BANNED[what], code_of(template))
    assert found is None, f"{template.name} holds {what}: {found[0]}"


@pytest.mark.parametrize(
    ("what", "sample"),
    [
        ("markup that is not escaped", "{{ details|safe }}"),
        ("markup that is not escaped", "{% autoescape false %}"),
        ("an inline style", '<p class="x" style="color:red">'),
        ("an inline handler", '<a href="/" onclick="go()">'),
        ("an inline handler", "<b hx-on:click='go()'>"),
        ("a script of htmx", "<b hx-vals='js:{a: 1}'>"),
        ("a script of htmx", '<b hx-trigger="click[ctrlKey]">'),
        ("an inline script", '<script nonce="{{ nonce }}">go()</script>'),
        ("a script without its nonce", '<script src="/a.js"></script>'),
        ("an address for scripts", '<a href="javascript:go()">'),
    ],
)
def test_the_bans_find_what_they_ban(what: str, sample: str) -> None:
    assert re.search(BANNED[what], sample)


def test_no_code_of_the_console_marks_text_as_safe() -> None:
    offenders = [
        path.name for path in HERE.rglob("*.py") if re.search(r"\bMarkup\b|autoescape=False", code_of(path))
    ]
    assert offenders == []


@pytest.mark.parametrize("path", [*TEMPLATES, *OURS], ids=lambda path: path.name)
def test_no_file_of_ours_names_another_host(path: Path) -> None:
    assert [name for name in HOST.findall(code_of(path)) if name not in VOCABULARIES] == []


@pytest.mark.parametrize("name", SUMS)
def test_a_vendored_file_is_the_one_we_looked_at(name: str) -> None:
    assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == SUMS[name]


def test_every_vendored_file_has_its_sum_and_its_licence() -> None:
    assert {path.name for path in VENDOR.iterdir()} == {*SUMS, "SHA256SUMS", "LICENSES.txt"}
    licences = code_of(VENDOR / "LICENSES.txt")
    assert [name for name in SUMS if name not in licences] == []


@pytest.mark.parametrize("name", SUMS)
def test_a_vendored_file_fetches_nothing_from_another_host(name: str) -> None:
    """Licences and documentation name hosts in comments; nothing else may."""
    text = re.sub(r"/\*.*?\*/", "", code_of(VENDOR / name), flags=re.DOTALL)
    assert [host for host in HOST.findall(text) if host not in VOCABULARIES] == []


def test_every_asset_that_a_template_names_is_there_and_each_of_ours_is_named() -> None:
    named = {name for path in TEMPLATES for name in re.findall(r"static\('([^']+)'\)", code_of(path))}
    assert [name for name in named if not (STATIC / name).is_file()] == []
    assert [path.name for path in OURS if path.name not in named] == []
