"""How are query texts read?"""

from datetime import UTC, datetime

from app.domain.clock import to_us
from app.domain.phase import Phase
from app.errors import InvalidInput


def instant_us(field: str, text: str | None) -> int | None:
    """An RFC 3339 instant in microseconds; without an offset it is UTC. Raises `InvalidInput`."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput([(field, "must be a time such as 2026-01-31T12:00:00Z")]) from error
    return to_us(at if at.tzinfo else at.replace(tzinfo=UTC))


def phase_of(field: str, text: str) -> Phase:
    if text not in list(Phase):
        raise InvalidInput([(field, f"must be one of {', '.join(Phase)}")])
    return Phase(text)


def words_of(field: str, text: str) -> str:
    """What a person writes: nobody turns a lever without saying why."""
    if not text.strip() or "\x00" in text:  # PostgreSQL keeps no NUL
        raise InvalidInput([(field, "must be a non-empty text without NUL characters")])
    return text
