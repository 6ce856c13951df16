"""Which decisions does the address of a page ask for?"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode

from app.domain.clock import instant, to_us
from app.domain.search import CHOICES, Filters
from app.errors import InvalidInput

AGREEMENTS = {"true": True, "false": False}
_TEXTS = ("rollout", "actor", "action", "version")
_TIMES = ("since", "until")
_NAMES = (*_TEXTS, *CHOICES, "agreement", "epoch", *_TIMES)


@dataclass(frozen=True, slots=True)
class Sought:
    """What was asked for, by name, as the address says it; an empty field asks for nothing."""

    given: Mapping[str, str]
    page: Mapping[str, str]  # `before` or `after`, the id of a decision

    @classmethod
    def of(cls, query: str) -> Self:
        said = {name: value.strip() for name, value in parse_qsl(query) if value.strip()}
        given = {name: said[name] for name in _NAMES if name in said}
        return cls(given, {name: said[name] for name in ("before", "after") if name in said})

    @property
    def filters(self) -> Filters:
        """Raises `InvalidInput` naming every filter that is none."""
        errors: list[tuple[str, str]] = []
        said: dict[str, Any] = {}
        for name, value in self.given.items():
            try:
                said[_MEMBERS.get(name, name)] = _read(name, value)
            except ValueError as error:
                errors.append((name, str(error)))
        if errors:
            raise InvalidInput(errors)
        return Filters(**said)

    def without(self, name: str) -> "Sought":
        return Sought({each: value for each, value in self.given.items() if each != name}, {})

    def address(self, path: str = "/decisions", **page: str) -> str:
        query = urlencode({**self.given, **page})
        return f"{path}?{query}" if query else path

    def local(self, name: str) -> str:
        """A time as a browser's field for one takes it, UTC."""
        return f"{instant(self.given[name]).astimezone(UTC):%Y-%m-%dT%H:%M:%S}" if name in self.given else ""


_MEMBERS = {"actor": "actor_id", "action": "action_type", "since": "since_us", "until": "until_us"}


def _read(name: str, value: str) -> str | bool | int:
    choices = AGREEMENTS if name == "agreement" else CHOICES.get(name)
    if choices is not None and value not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}")
    if name == "agreement":
        return AGREEMENTS[value]
    if name == "epoch":
        if not value.isdecimal():
            raise ValueError("must be a whole number")
        return int(value)
    if name not in _TIMES:
        return value
    try:
        return to_us(instant(value))
    except ValueError as error:
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z") from error
