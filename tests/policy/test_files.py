from enum import StrEnum
from pathlib import Path

import pytest

from app.errors import PolicyError
from app.policy.files import MAX_BYTES, parse_yaml, read_text


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


def test_a_value_knows_its_line_and_dotted_key() -> None:
    root = parse_yaml("a: 1\nb:\n  c:\n    - x\n    - y\n", "p.yaml")
    item = root.entries()["b"].entries()["c"].items()[1]
    assert (item.line, item.key, item.text()) == (5, "b.c[1]", "y")


def test_scalars_keep_their_kinds() -> None:
    found = parse_yaml("{t: yes, b: true, i: 7, f: 1.5e-3, n: null, q: '1'}", "p.yaml").entries()
    assert [node.value for node in found.values()] == ["yes", True, 7, 1.5e-3, None, "1"]


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("a: 1\nb: 2\na: 3", 3, "a", "twice"),
        ("a: &x 1\nb: *x", 1, "a", "anchors"),
        ("a: 1\nb: [1", 2, "", "not YAML"),
        ("a: 0x10", 1, "a", "not a plain"),
        ("a: 2026-01-01", 1, "a", "not a plain"),
        ("a: !!python/name:os.system x", 1, "a", "not a plain"),
        ("a: .nan", 1, "a", "not a plain"),
        ("a: 1\n---\nb: 2", 2, "", "not YAML"),
        ("? [1]\n: 2", 1, "", "a key must be a text"),
        ("", None, "", "empty"),
        ("[" * 50 + "]" * 50, 1, "[0]" * 21, "nested too deeply"),
        ("[" * 9000, None, "", "not YAML"),
        ("a: " + "x" * MAX_BYTES, None, "", "larger than 1024 KiB"),
    ],
    ids=lambda value: str(value)[:20].replace("\n", " "),
)
def test_what_is_not_plain_data_is_refused_with_its_place(
    text: str, line: int | None, key: str, says: str
) -> None:
    with pytest.raises(PolicyError, match=says) as caught:
        parse_yaml(text, "p.yaml")
    assert (caught.value.path, caught.value.line, caught.value.key) == ("p.yaml", line, key)


def test_an_unknown_key_is_an_error_that_names_the_near_one() -> None:
    root = parse_yaml("top:\n  excat: 1\n", "p.yaml").entries()["top"]
    with pytest.raises(PolicyError, match="did you mean 'exact'") as caught:
        root.fields(("exact",))
    assert str(caught.value).startswith("p.yaml:2: top.excat: unknown key")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(PolicyError, match=r"p.yaml:1: exact: is required"):
        parse_yaml("a: 1", "p.yaml").fields(("a", "exact"), required=("exact",))


@pytest.mark.parametrize("value", ["true", "'1'", "null", "[1]", "{a: 1}"])
def test_what_is_not_a_number_is_not_taken_for_one(value: str) -> None:
    node = parse_yaml(f"a: {value}", "p.yaml").entries()["a"]
    with pytest.raises(PolicyError, match="must be a number"):
        node.number(at_least=0, at_most=1)
    with pytest.raises(PolicyError, match="must be a whole number"):
        node.whole()


def test_bounds_are_kept() -> None:
    node = parse_yaml("a: 1", "p.yaml").entries()["a"]
    assert node.number(at_least=1, at_most=1) == 1.0
    with pytest.raises(PolicyError, match="above 0 and below 1"):
        node.inside(0, 1)
    with pytest.raises(PolicyError, match="from 2 to 3"):
        node.number(at_least=2, at_most=3)


def test_a_closed_set_takes_its_members_only() -> None:
    found = parse_yaml("{a: red, b: gren, c: 1}", "p.yaml").entries()
    assert found["a"].one_of(Colour) is Colour.RED
    with pytest.raises(PolicyError, match="red, green; did you mean 'green'"):
        found["b"].one_of(Colour)
    with pytest.raises(PolicyError, match="must be one of"):
        found["c"].one_of(Colour)


def test_a_list_of_texts_has_no_member_twice() -> None:
    with pytest.raises(PolicyError, match=r"p.yaml:1: \[1\]: 'a' stands here twice"):
        parse_yaml("[a, a]", "p.yaml").texts()


def test_a_file_that_cannot_be_read_is_a_policy_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        read_text(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(PolicyError, match="not UTF-8"):
        read_text(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(PolicyError, match="larger"):
        read_text(tmp_path / "large.yaml")
