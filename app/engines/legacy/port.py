"""What does every legacy engine promise, what does it see, and what is a failure of it?"""

from collections.abc import Awaitable
from time import perf_counter
from typing import Any, Protocol

from app.domain.decision import Decision, LegacyAnswer
from app.domain.situation import Situation, facts

DEFAULT_RULE = "default"  # decided where no rule of the policy did
_ERROR_LENGTH = 300
_EMPTY: dict[str, Any] = {
    "resource": "",
    "team_context": "",
    "timestamp": "",
    "recent_history": "",
    "identity_metrics": {},
    "details": "",
}


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
    """Wait for a decision and its rule; what goes wrong is a failed answer, a deny (law 3)."""
    since = perf_counter()
    try:
        decision, rule = await asking
    except Exception as error:  # noqa: BLE001 - a failure that nobody thought of must not permit either
        said = f"{type(error).__name__}: {error}".encode("ascii", "backslashreplace").decode()
        return LegacyAnswer(engine, Decision.DENY, None, _elapsed_ms(since), said[:_ERROR_LENGTH])
    return LegacyAnswer(engine, decision, rule, _elapsed_ms(since))


def complete_facts(situation: Situation) -> dict[str, Any]:
    """The facts with empty values for what is absent, so that no condition needs a guard.

    `recent_history` is always one text, its entries on lines of their own.
    """
    known = {**_EMPTY, **facts(situation)}
    if not isinstance(known["recent_history"], str):
        known["recent_history"] = "\n".join(known["recent_history"])
    return known


def _elapsed_ms(since: float) -> float:
    return (perf_counter() - since) * 1000
