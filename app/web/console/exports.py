"""How does a list leave the console as a file that a spreadsheet opens without being told to act?"""

import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from litestar.response import Stream

from app.web.console.wording import visible

Page = Sequence[Mapping[str, Any]]

PAGE = 500

# What a spreadsheet takes for the beginning of a formula, in either width.
_FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")


def pages(
    ask: Callable[[str | None, int], Mapping[str, Any]], name: str, *, at_most: int = sys.maxsize
) -> Iterator[Page]:
    """Page after page of a list: `ask` is told cursor and limit and answers `{name: rows, next_cursor}`.

    Where there are more rows than `at_most`, the last one says so.
    """
    cursor, left = None, at_most
    while left:
        document = ask(cursor, min(left, PAGE))
        yield document[name]
        left -= len(document[name])
        cursor = document["next_cursor"]
        if cursor is None:
            return
    yield [{"notice": f"cut after {at_most} {name}", "next_cursor": cursor}]


def csv_file(found: Iterable[Page], columns: Sequence[str], *, name: str) -> Stream:
    """Rows as CSV (RFC 4180, UTF-8), one chunk a page, under a line of the columns' names."""

    def lines() -> Iterator[str]:
        yield _lines([columns])
        for page in found:
            yield _lines([[cell(row.get(column)) for column in columns] for row in page])

    return _file(lines(), f"{name}.csv", "text/csv")


def jsonl_file(found: Iterable[Page], *, name: str) -> Stream:
    """Whole documents, one a line, one chunk a page."""
    encoded = (b"".join(msgspec.json.encode(row) + b"\n" for row in page) for page in found)
    return _file(encoded, f"{name}.jsonl", "application/x-ndjson")


def cell(value: Any) -> str:
    """A value as a page shows it; a text that would be a formula begins with an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    text = visible(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _lines(rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def _file(content: Iterator[str] | Iterator[bytes], name: str, media_type: str) -> Stream:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    return Stream(content, media_type=media_type, headers={**headers, "Cache-Control": "no-store"})
