"""How are numbers, times and names written for a person?"""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

_NOTHING = "–"
# Characters that turn the direction of what follows, or are not seen at all: they could hide what was sent.
_UNSEEN = frozenset(
    [
        *(*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0xAD, 0x61C),
        *(*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF),
        *(0x34F, 0x115F, 0x1160, 0x3164, 0xFFA0, *range(0x180B, 0x1810), *range(0xFFF0, 0xFFFC)),
        *(*range(0xFE00, 0xFE0F), *range(0xE0000, 0xE1000)),  # tags and variations: a text within the text
    ]
)


def visible(text: object) -> str:
    """Text whose invisible and bidirectional characters are shown by their code, such as `[U+202E]`."""
    return "".join(f"[U+{ord(char):04X}]" if ord(char) in _UNSEEN else char for char in str(text))


def words(name: object) -> str:
    """A wire name as people read it: `require_attestation` is `require attestation`."""
    return _NOTHING if name is None else str(name).replace("_", " ")


def percent(share: float | None, digits: int = 1) -> str:
    """A share from 0 to 1 in percent."""
    return _NOTHING if share is None or math.isnan(share) else f"{share * 100:.{digits}f} %"


def number(value: float | None) -> str:
    """Thousands apart by a narrow space; up to three significant digits below 100."""
    if value is None or math.isnan(value):
        return _NOTHING
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.3g}"


def ms(value: float | None) -> str:
    """Milliseconds; from a second on, seconds."""
    if value is None:
        return _NOTHING
    if math.isinf(value):
        return "over 60 s"
    return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms"


def size(n_bytes: float) -> str:
    """Bytes in the unit that suits them: `1.5 MiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(n_bytes) < 1024:
            return f"{n_bytes:.3g} {unit}" if n_bytes < 1000 else f"{n_bytes:.0f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.3g} TiB"


def moment(at: str | datetime | None) -> str:
    """An RFC 3339 time as `2026-01-31 12:00:05`, UTC."""
    if at is None:
        return _NOTHING
    when = datetime.fromisoformat(at) if isinstance(at, str) else at
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def upper_first(text: str) -> str:
    """A sentence begins with a capital."""
    return text[:1].upper() + text[1:]


FILTERS: dict[str, Callable[..., Any]] = {
    "visible": visible,
    "words": words,
    "percent": percent,
    "number": number,
    "ms": ms,
    "size": size,
    "moment": moment,
    "upper_first": upper_first,
}
