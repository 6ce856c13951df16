"""What do the engines in this process see of a situation?"""

from typing import Any

from app.domain.situation import Situation, facts

_EMPTY: dict[str, Any] = {
    "resource": "",
    "team_context": "",
    "timestamp": "",
    "recent_history": "",
    "identity_metrics": {},
    "details": "",
}


def complete_facts(situation: Situation) -> dict[str, Any]:
    """The facts with empty values for what is absent, so that no condition needs a guard.

    `recent_history` is always one text, its entries on lines of their own.
    """
    known = {**_EMPTY, **facts(situation)}
    if not isinstance(known["recent_history"], str):
        known["recent_history"] = "\n".join(known["recent_history"])
    return known
