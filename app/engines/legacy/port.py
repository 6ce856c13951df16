"""What does every legacy engine promise, and how does it tell an answer from a failure?"""

from collections.abc import Awaitable
from time import perf_counter
from typing import Protocol

from app.domain.decision import Decision, LegacyAnswer
from app.domain.situation import Situation

_ERROR_LENGTH = 300


class LegacyEngine(Protocol):
    """The engine that answered before there was a model.

    `sha256` names the policy as far as it can be known here; another hash starts a new epoch.
    """

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    async def decide(self, situation: Situation) -> LegacyAnswer:
        """Answer within the engine's deadline. Never raises: what goes wrong is a failed answer."""
        ...

    async def close(self) -> None:
        """Give back connections; the engine is not asked again."""
        ...


async def settled(engine: str, asking: Awaitable[tuple[Decision, str | None]]) -> LegacyAnswer:
    """Wait for a decision and its rule; whatever goes wrong becomes a failed answer."""
    since = perf_counter()
    try:
        decision, rule = await asking
    except Exception as error:  # noqa: BLE001 - a failure that nobody thought of must not permit either
        return failed(engine, error, since=since)
    return answered(engine, decision, rule=rule, since=since)


def answered(engine: str, decision: Decision, *, rule: str | None, since: float) -> LegacyAnswer:
    """An answer; `since` is what `perf_counter` said when the engine was asked."""
    return LegacyAnswer(engine, decision, rule, _elapsed_ms(since))


def failed(engine: str, error: str | BaseException, *, since: float) -> LegacyAnswer:
    """A failure, which counts as deny (law 3)."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    printable = text.encode("ascii", "backslashreplace").decode()
    return LegacyAnswer(engine, Decision.DENY, None, _elapsed_ms(since), printable[:_ERROR_LENGTH])


def _elapsed_ms(since: float) -> float:
    return (perf_counter() - since) * 1000
