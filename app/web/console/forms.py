"""What did a person tick and type?"""

from app.errors import InvalidInput

Ticked = list[str] | str  # of several boxes of one name, one alone comes as a text


def ticked(said: Ticked) -> list[str]:
    return [said] if isinstance(said, str) else said


def lines(said: str) -> list[str]:
    """One item a line."""
    return [line.strip() for line in said.splitlines() if line.strip()]


def check_typed(typed: str, name: str) -> None:
    """Raises `InvalidInput` where somebody was to type a name and typed another."""
    if typed.strip() != name.strip():
        raise InvalidInput([("typed", f"must be the name, {name}")])
