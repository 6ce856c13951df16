"""What does the address of a list ask for?"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode

from app.domain.clock import instant
from app.domain.search import CHOICES
from app.errors import InvalidInput
from app.web.authentication import Asked
from app.web.bodies import instant_us

_FLAGS = {"true": True, "false": False}
_READ_OF = {"agreement": _FLAGS, "automatic": _FLAGS}
_MEMBERS = {"actor": "actor_id", "action": "action_type", "since": "since_us", "until": "until_us"}
_PLACES = ("before", "after", "cursor")


@dataclass(frozen=True, slots=True)
class Sought:
    """Filters by name, as the address says them, and where the page begins; an empty field asks for nothing."""

    path: str
    given: Mapping[str, str]
    place: Mapping[str, str]

    @classmethod
    def of(cls, request: Asked, names: Collection[str]) -> Self:
        """`names` are the filters of the list; its files have its path with an ending."""
        said = {name: value.strip() for name, value in parse_qsl(request.url.query) if value.strip()}
        given = {name: said[name] for name in names if name in said}
        place = {name: said[name] for name in _PLACES if name in said}
        return cls(request.url.path.partition(".")[0], given, place)

    @property
    def filters(self) -> dict[str, Any]:
        """The members of `Filters` or `TransitionFilters`. Raises `InvalidInput` naming every filter that is none."""
        errors: list[tuple[str, str]] = []
        read: dict[str, Any] = {}
        for name, value in self.given.items():
            try:
                read[_MEMBERS.get(name, name)] = _read(name, value)
            except InvalidInput as error:
                errors += error.fields
        if errors:
            raise InvalidInput(errors)
        return read

    def without(self, name: str) -> Self:
        return replace(
            self, given={each: value for each, value in self.given.items() if each != name}, place={}
        )

    def address(self, ending: str = "", **more: str) -> str:
        """Where the same is found from its beginning on, with what `more` names in the place of what is given."""
        query = urlencode({**self.given, **more})
        return f"{self.path}{ending}?{query}" if query else f"{self.path}{ending}"

    def local(self, name: str) -> str:
        """A time as a browser's field for one takes it, UTC."""
        return f"{instant(self.given[name]):%Y-%m-%dT%H:%M:%S}" if name in self.given else ""


def _read(name: str, value: str) -> str | bool | int | None:
    choices = _READ_OF.get(name, CHOICES.get(name))
    if choices is not None and value not in choices:
        raise InvalidInput([(name, f"must be one of {', '.join(choices)}")])
    if name in _READ_OF:
        return _READ_OF[name][value]
    if name in ("since", "until"):
        return instant_us(name, value)
    if name != "epoch":
        return value
    if not (value.isdecimal() and len(value) < 10):
        raise InvalidInput([(name, "must be a whole number of at most 9 digits")])
    return int(value)
