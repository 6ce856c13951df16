"""How does a report look as text, and as a page that needs nothing but itself?

Whatever callers, reviewers and operators wrote is escaped: by Jinja's autoescape on the page, by `_plain` in
Markdown.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&]|^[#+!]|:(?=//))")
_BLANK_LINES = re.compile(r"\n{3,}")
_WIDTH, _HEIGHT, _PAD = 132, 32, 3
_ORDER = ("allow", "require_attestation", "deny")
_NOTHING = "no data"
_NO_BASELINE: dict[str, Any] = {
    **dict.fromkeys(("observed", "agreement", "error_rate", "p50_ms", "p95_ms", "p99_ms")),
    "distribution": {},
}

Trend = Sequence[Mapping[str, Any]]


def as_markdown(document: Mapping[str, Any]) -> str:
    text = _environment("md").get_template("report.md.j2").render(report=document)
    return _BLANK_LINES.sub("\n\n", text)


def as_html(document: Mapping[str, Any], *, theme: str = "auto") -> str:
    """One page: its style is inline, its charts are SVG, and it names no other address.

    `theme` is light, dark, or auto for the reader's own.
    """
    return _environment("html").get_template("report.html.j2").render(report=document, theme=theme)


@cache
def style_source() -> str:
    """The page's style as a content security policy names it: by its SHA-256, and no other runs."""
    style = _environment("html").get_template("style.html.j2").render()
    inside = style.removeprefix("<style>").rstrip().removesuffix("</style>")
    return f"sha256-{b64encode(hashlib.sha256(inside.encode()).digest()).decode()}"


@cache
def _environment(form: str) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=form == "html",  # noqa: S701 -- Markdown is escaped by `plain`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {"plain": _plain, "words": _words, "spaced": _spaced, "day": _day}
        | {"percent": _percent, "bound": _bound, "ms": _ms, "number": _number}
    )
    charts = {"chart": _chart, "bar": _bar} if form == "html" else {"chart": _blocks, "bar": _shares}
    environment.globals.update(charts, no_baseline=_NO_BASELINE)
    return environment


def _plain(value: object) -> str:
    """Text in which Markdown and HTML find nothing of theirs, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(_words(value)).split()))


def _words(value: object) -> object:
    return "–" if value is None else value


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _bound(value: float | None, side: str) -> str:
    return "" if value is None else f"{side} {value:.1%}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f} ms"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 100 else f"{value:,.0f}"


def _day(instant: str) -> str:
    return instant[:10]


def _blocks(trend: Trend, member: str, _title: str, _baseline: Mapping[str, Any]) -> str:
    """A line over the days in letters, the lowest day at the bottom; a blank where there is no figure."""
    values = [point[member] for point in trend]
    known = [value for value in values if value is not None]
    if not known:
        return _NOTHING
    low, span = min(known), (max(known) - min(known)) or 1.0
    return "".join("·" if value is None else "▁▂▃▄▅▆▇█"[round((value - low) / span * 7)] for value in values)


def _chart(trend: Trend, member: str, title: str, baseline: Mapping[str, Any]) -> Markup:
    """A line over the days, with the baseline as a dashed one; the title says in words what is seen."""
    seen = [(i, point[member]) for i, point in enumerate(trend) if point[member] is not None]
    if not seen:
        return Markup(f'<span class="none">{_NOTHING}</span>')  # noqa: S704
    base = baseline[member]
    values = [value for _, value in seen] + ([] if base is None else [base])
    low, high = min(values), max(values)
    last = max(len(trend) - 1, 1)

    def y(value: float) -> float:
        height = (value - low) / (high - low) if high > low else 0.5
        return round(_HEIGHT - _PAD - height * (_HEIGHT - 2 * _PAD), 1)

    points = [(round(_PAD + i / last * (_WIDTH - 2 * _PAD), 1), y(value)) for i, value in seen]
    drawn = "" if base is None else f'<line class="base" x1="0" x2="{_WIDTH}" y1="{y(base)}" y2="{y(base)}"/>'
    drawn += f'<polyline points="{" ".join(f"{x},{at}" for x, at in points)}"/>'
    return _svg(title, drawn + '<circle cx="{}" cy="{}" r="2.5"/>'.format(*points[-1]))


def _bar(distribution: Mapping[str, int], title: str) -> Markup:
    """The three decisions' shares as one bar."""
    whole = sum(distribution.values())
    if not whole:
        return Markup(f'<span class="none">{_NOTHING}</span>')  # noqa: S704
    drawn, x = "", 0.0
    for label in _ORDER:
        width = distribution[label] / whole * _WIDTH
        drawn += f'<rect class="{label}" x="{x:.1f}" y="8" width="{width:.1f}" height="14"/>'
        x += width
    return _svg(f"{title}: {_shares(distribution)}", drawn)


def _shares(distribution: Mapping[str, int], _title: str = "") -> str:
    whole = sum(distribution.values())
    if not whole:
        return _NOTHING
    return ", ".join(f"{label} {distribution[label] / whole:.0%}" for label in _ORDER)


def _svg(title: str, drawn: str) -> Markup:
    """`drawn` holds numbers of ours and nothing that anybody wrote."""
    return Markup(
        '<svg class="spark" role="img" width="{w}" height="{h}" viewBox="0 0 {w} {h}"><title>{title}</title>{drawn}</svg>'
    ).format(w=_WIDTH, h=_HEIGHT, title=title, drawn=Markup(drawn))  # noqa: S704
