"""How does a command write its data to stdout and its words to stderr?"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import rich_click as click

F = TypeVar("F", bound=Callable[..., Any])

T = TypeVar("T")
Row = Sequence[object]

json_option: Callable[[F], F] = click.option(
    "--json", "as_json", is_flag=True, help="Print the data as JSON."
)


def say(text: str) -> None:
    """A sentence for the person, on stderr."""
    click.echo(text, err=True)


def emit_json(document: object) -> None:
    click.echo(json.dumps(document, ensure_ascii=False))


def emit(document: T, show: Callable[[T], None], *, as_json: bool) -> None:
    """A document for whoever asked: as JSON, or as `show` shows it to a person."""
    if as_json:
        emit_json(document)
    else:
        show(document)


def emit_list(
    document: Mapping[str, Any],
    member: str,
    columns: Sequence[str],
    *,
    as_json: bool,
    row: Callable[[Mapping[str, Any]], Row] | None = None,
) -> None:
    """A document as JSON, or its list `member` as a table of what `columns` name or `row` makes of each."""
    if as_json:
        emit_json(document)
        return
    found = document[member]
    emit_table(columns, [row(each) if row else [each.get(name) for name in columns] for each in found])


def tell(document: object, sentence: str, *, as_json: bool) -> None:
    """What happened, in a sentence, and as JSON where that is asked for."""
    if as_json:
        emit_json(document)
    say(sentence)


def emit_table(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Aligned columns without lines around them, so that `awk` can read them too."""
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    for row in [list(columns), *cells]:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def emit_facts(facts: Iterable[tuple[str, object]]) -> None:
    """One `name value` pair a line."""
    pairs = [(name, cell(value)) for name, value in facts]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        click.echo(f"{name.ljust(width)}  {value}".rstrip())


def emit_facts_of(document: Mapping[str, object], *, as_json: bool) -> None:
    """A document as JSON, or its members one a line."""
    emit(document, lambda facts: emit_facts(facts.items()), as_json=as_json)


def span(seconds: float | None) -> str:
    """A length of time in the unit that suits it."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def cell(value: object) -> str:
    """A value as a person reads it in a table."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            return ",".join(cell(each) for each in value)
        case _:
            return str(value)
