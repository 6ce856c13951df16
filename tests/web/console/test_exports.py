"""Is a cell of an export what was recorded, and never a formula?"""

import pytest

from app.web.console.exports import cell


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("a=b", "a=b"),
        ("mal\u202eory", "mal[U+202E]ory"),
        ("", ""),
        (None, ""),
        (True, "true"),
        (-1.5, "-1.5"),
        (7, "7"),
        ({"phase": "shadow"}, '{"phase":"shadow"}'),
        (["a", "b"], '["a","b"]'),
    ],
)
def test_a_value_is_written_as_it_is(value: object, shown: str) -> None:
    assert cell(value) == shown


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠", "  ="])
def test_a_text_that_would_be_a_formula_begins_with_an_apostrophe(begins: str) -> None:
    assert cell(f"{begins}HYPERLINK()") == f"'{begins}HYPERLINK()"
