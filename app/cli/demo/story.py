"""How is the story told, line by line, to people and to programs?"""

import json
import time
from collections.abc import Iterable
from typing import Any

import rich_click as click

from app.client.wire import Document

_INDENT = " " * 10
_MARKS = {"pass": "✓", "insufficient": "·", "fail": "✗", "error": "!"}


class Trouble(Exception):
    """Something that the story cannot go on from; the message says what."""


class Story:
    """Lines with their time: text for people, or one JSON object a line."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._began = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def tell(self, event: str, sentence: str, *, below: Iterable[str] = (), **facts: Any) -> None:
        """One line, and what stands `below` it; a program gets the facts instead."""
        at_s = round(self.elapsed_s, 1)
        if self._as_json:
            line = {"at_s": at_s, "event": event, "sentence": sentence, **facts}
            click.echo(json.dumps(line, ensure_ascii=False))
            return
        click.echo(f"{at_s:6.1f} s  {sentence}")
        for text in below:
            click.echo(_INDENT + text)

    def chapter(self, title: str, *explained: str) -> None:
        """A new act, with what a newcomer has to know of it."""
        if self._as_json:
            self.tell("chapter", title)
            return
        click.echo("")
        click.secho(title, bold=True)
        for text in explained:
            click.echo(text)


def checklist(gate: Document) -> list[str]:
    """Every condition of a gate that rests on evidence, and every other one that is not met."""
    return [
        f"{_MARKS[each['outcome']]} {each['sentence']}"
        for each in gate["conditions"]
        if each["value"] is not None or each["outcome"] != "pass"
    ]


def missing(gate: Document) -> dict[str, int | None]:
    """The conditions that are not met yet, and how many more observations each needs, if that is known."""
    return {each["name"]: each["needed"] for each in gate["conditions"] if each["outcome"] != "pass"}


def missing_line(gate: Document) -> str:
    """What is missing, in a few words."""
    return ", ".join(name if more is None else f"{name} {more} more" for name, more in missing(gate).items())


def guardrail_line(guardrail: Document) -> str:
    """One guardrail's outcome with what it saw."""
    return f"{guardrail['name']:<19}{guardrail['outcome']:<14}{guardrail['sentence']}"
