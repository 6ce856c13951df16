"""How is the story told, line by line, to people and to programs?"""

import json
import time
from typing import Any

import rich_click as click

from app.cli.output import cell
from app.client.wire import Document


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

    def tell(self, event: str, sentence: str, **facts: Any) -> None:
        at_s = round(self.elapsed_s, 1)
        if self._as_json:
            line = {"at_s": at_s, "event": event, "sentence": sentence, **facts}
            click.echo(json.dumps(line, ensure_ascii=False))
        else:
            click.echo(f"{at_s:6.1f} s  {sentence}")

    def chapter(self, title: str) -> None:
        if not self._as_json:
            click.echo("")
        self.tell("chapter", title)


def gate_lines(gate: Document) -> list[str]:
    """What is missing, with its numbers; where nothing is, every condition that rests on evidence."""
    if gate["outcome"] != "pass":
        return [f"gate: {gate['sentence']}"]
    met = [f"  ✓ {each['sentence']}" for each in gate["conditions"] if each.get("value") is not None]
    return [f"gate: {gate['sentence']}", *met]


def guardrail_line(guardrail: Document) -> str:
    """One guardrail's outcome with its evidence against its threshold."""
    words = f"guardrail {guardrail['name']}: {guardrail['outcome']}"
    numbers = [
        f"{name} {cell(guardrail[key])}"
        for name, key in (
            ("E", "e_value"),
            ("threshold", "threshold"),
            ("rate", "rate"),
            ("limit", "limit"),
            ("n", "n"),
        )
        if guardrail.get(key) is not None
    ]
    return f"{words}: {', '.join(numbers)}" if numbers else words
