"""When may a call be tried again, and after how long a pause?"""

import random

import httpx

# Nothing was decided: no connection, or the server says that it did not take the request.
RETRIED_STATUS = frozenset({429, 503})
RETRIED_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout)

# A server that is started again is back by then; one that is not there at all is worth no longer wait.
CONNECT_WITHIN_S = 3.0

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


def pause_s(attempt: int, retry_after: str | None = None) -> float:
    """Full jitter over a doubling span, `attempt` from 0; at least what the server asked for."""
    span = min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S)
    asked = float(retry_after) if retry_after is not None and retry_after.isdecimal() else 0.0
    return asked + random.uniform(0, span)  # noqa: S311 -- spreads load, guards nothing
