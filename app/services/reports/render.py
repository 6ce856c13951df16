"""How does a report look as text, and as a page that needs nothing but itself?

Whatever callers, reviewers and operators wrote is escaped: by Jinja's autoescape on the page, by `_plain` in
Markdown.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&]|:(?=//))")
_WIDTH, _HEIGHT, _PAD = 132, 32, 3
_ORDER = ("allow", "require_attestation", "deny")


def as_markdown(document: Mapping[str, Any]) -> str:
    return _environment().get_template("report.md.j2").render(report=document)


def as_html(document: Mapping[str, Any]) -> str:
    """One page: its style is inline, its charts are SVG, and it names no other address."""
    return _environment().get_template("report.html.j2").render(report=document)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        plain=_plain, percent=_percent, bound=_bound, ms=_ms, number=_number, day=_day, words=_words
    )
    environment.globals.update(sparkline=_sparkline, bar=_bar)
    return environment


def _plain(value: object) -> str:
    """Text in which Markdown and HTML find nothing of theirs, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(_words(value).split()))


def _words(value: object) -> str:
    return "–" if value is None else str(value)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _bound(value: float | None, side: str) -> str:
    return "" if value is None else f"{side} {value:.1%}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f} ms"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def _day(instant: str) -> str:
    return instant[:10]


def _sparkline(
    trend: Sequence[Mapping[str, Any]], member: str, *, title: str, baseline: float | None = None
) -> Markup:
    """A line over the days, with the baseline as a dashed one; the title says in words what is seen."""
    seen = [(i, point[member]) for i, point in enumerate(trend) if point[member] is not None]
    if not seen:
        return Markup('<span class="none">no data</span>')
    values = [value for _, value in seen] + ([] if baseline is None else [baseline])
    low, high = min(values), max(values)
    span, last = (high - low) or 1.0, max(len(trend) - 1, 1)

    def y(value: float) -> float:
        flat = (value - low) / span if high > low else 0.5
        return round(_HEIGHT - _PAD - flat * (_HEIGHT - 2 * _PAD), 1)

    points = [(round(_PAD + i / last * (_WIDTH - 2 * _PAD), 1), y(value)) for i, value in seen]
    line = " ".join(f"{x},{at}" for x, at in points)
    rule = ""
    if baseline is not None:
        rule = f'<line class="base" x1="0" x2="{_WIDTH}" y1="{y(baseline)}" y2="{y(baseline)}"/>'
    x, at = points[-1]
    return Markup(
        '<svg class="spark" role="img" width="{w}" height="{h}" viewBox="0 0 {w} {h}"><title>{title}</title>'
        '{rule}<polyline points="{line}"/><circle cx="{x}" cy="{at}" r="2.5"/></svg>'
    ).format(w=_WIDTH, h=_HEIGHT, title=title, rule=Markup(rule), line=line, x=x, at=at)  # noqa: S704


def _bar(distribution: Mapping[str, int], *, title: str) -> Markup:
    """The three decisions' shares as one bar."""
    whole = sum(distribution.values())
    if not whole:
        return Markup('<span class="none">no data</span>')
    parts, x = [], 0.0
    for label in _ORDER:
        width = distribution.get(label, 0) / whole * _WIDTH
        parts.append(f'<rect class="{label}" x="{x:.1f}" y="8" width="{width:.1f}" height="14"/>')
        x += width
    told = ", ".join(f"{label} {distribution.get(label, 0) / whole:.0%}" for label in _ORDER)
    return Markup(
        '<svg class="spark" role="img" width="{w}" height="{h}" viewBox="0 0 {w} {h}"><title>{title}: {told}</title>'
        "{parts}</svg>"
    ).format(w=_WIDTH, h=_HEIGHT, title=title, told=told, parts=Markup("".join(parts)))  # noqa: S704
