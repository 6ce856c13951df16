"""Does a person see all that was sent?"""

import pytest

from app.web.console.wording import visible

UNSEEN = (
    "\x00\x1b\x7f\xad\u034f\u061c\u115f\u180e\u200b\u200d\u2028\u202e\u2066\u3164\ufe00\ufeff\uffa0\ufffb"
)


@pytest.mark.parametrize("char", [*UNSEEN, *map(chr, (0xE0001, 0xE0041, 0xE01EF))], ids=ascii)
def test_what_nobody_sees_or_what_turns_the_rest_is_shown_by_its_code(char: str) -> None:
    assert visible(f"a{char}b") == f"a[U+{ord(char):04X}]b"


@pytest.mark.parametrize("text", ["plain", "a\nb", "naïve", "日本語", "שלום", "⚠\ufe0f", ""])
def test_what_everybody_sees_stays_as_it_is(text: str) -> None:
    assert visible(text) == text
