"""What does the table look like in one picture?"""

import math
from collections.abc import Iterable, Iterator, Sequence

from tests.bench.guardrails.table import Row

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 430, 62, 24, 46, 52
_HOURS = (0.5, 300.0)  # the axis of delays
_COLOURS = ("#0b6e4f", "#b5651d", "#8a6d00", "#b3261e", "#4a5fc1", "#7a3e9d")
_SHAPES = {"decision": 5.0, "hour": 4.0, "day": 3.0}


def svg(rows: Sequence[Row], *, volume: int, effect: str) -> str:
    """False rollbacks of a stream at half the limit against the median delay to one change, by rule and looks."""
    shown = [row for row in rows if row.volume == volume]
    rules = list(dict.fromkeys(row.rule for row in shown))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12" role="img">',
        f"<title>False rollbacks against delay, {volume:,} decisions a day</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(
            _LEFT,
            20,
            f"{volume:,} decisions a day: who rolls back a healthy stream, and who comes late?",
            size=14,
        ),
        *_axes(effect),
    ]
    for number, rule in enumerate(rules):
        parts += _series([row for row in shown if row.rule == rule], effect, number)
        parts += _legend(number, rule)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT - 170)


def _y(hours: float) -> float:
    low, high = (math.log(each) for each in _HOURS)
    part = (math.log(min(max(hours, _HOURS[0]), _HOURS[1])) - low) / (high - low)
    return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", turn: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#222222"{turn}>{text}</text>'


def _axes(effect: str) -> Iterator[str]:
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _x(share)
        yield f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_HEIGHT - _BOTTOM}" stroke="#dddddd"/>'
        yield _text(x, _HEIGHT - _BOTTOM + 16, f"{share:.0%}", anchor="middle")
    for hours, name in ((1, "1 h"), (6, "6 h"), (24, "1 day"), (96, "4 days"), (_HOURS[1], "never")):
        y = _y(hours)
        yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_x(1):.1f}" y2="{y:.1f}" stroke="#dddddd"/>'
        yield _text(_LEFT - 6, y + 4, name, anchor="end")
    yield _text(_x(0.5), _HEIGHT - 14, "healthy streams rolled back within 14 days", anchor="middle")
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    turn = f' transform="rotate(-90 14 {middle:.0f})"'
    yield _text(14, middle, f"median delay after a rise to {effect} the limit", anchor="middle", turn=turn)


def _series(rows: Iterable[Row], effect: str, number: int) -> Iterator[str]:
    """One point for each rhythm of looks, the largest for the most frequent."""
    places, colour = [], _COLOURS[number]
    for row in rows:
        # Where no stream was left before the change, the rule had rolled back at once: the lower edge.
        median, _ = row.delay[effect] or (_HOURS[0], 0.0)
        places.append((_x(row.rolled_back["half"]), _y(median), _SHAPES[row.looks]))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-opacity="0.4"/>'
    for x, y, radius in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" fill-opacity="0.85"/>'


def _legend(number: int, rule: str) -> Iterator[str]:
    x, y = _x(1) + 24, _TOP + 14 + 20 * number
    yield f'<circle cx="{x:.1f}" cy="{y - 4:.1f}" r="5" fill="{_COLOURS[number]}"/>'
    yield _text(x + 12, y, rule)
