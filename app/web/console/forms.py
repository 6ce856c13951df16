"""What did a person tick and type?"""

from typing import Any

import msgspec
from litestar.exceptions import ValidationException

from app.errors import InvalidInput
from app.web.authentication import Asked
from app.web.console.wording import visible

Ticked = list[str] | str  # of several boxes of one name, one alone comes as a text


async def filled_in(request: Asked, body: type[msgspec.Struct]) -> Any:
    """The form as a `body`; a field left empty says nothing."""
    form = await request.form()
    try:
        return msgspec.convert({name: said for name, said in form.items() if said != ""}, body, strict=False)
    except msgspec.ValidationError as error:
        message, _, member = str(error).partition(" - at `$.")
        found = {"message": message, "key": member.rstrip("`") or "data", "source": "body"}
        raise ValidationException(message, extra=[found]) from error


def ticked(said: Ticked) -> list[str]:
    return [said] if isinstance(said, str) else said


def lines(said: str) -> list[str]:
    """One item a line."""
    return [line.strip() for line in said.splitlines() if line.strip()]


def check_typed(typed: str, name: str) -> None:
    """Raises `InvalidInput` where somebody was to type a name and typed another, be it as pages show it."""
    if visible(typed.strip()) != visible(name.strip()):
        raise InvalidInput([("typed", f"must be the name, {name}")])
