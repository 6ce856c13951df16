"""Who asks for what in the demo, and what would a careful person answer?

Three kinds of readers: trusted people who read ordinary things; trusted people in whose history
something is wrong, which the rules cannot read; and people whom nobody has reason to trust yet.
"""

import random
from collections.abc import Iterator
from typing import Any

_PEOPLE = [
    f"{name}.{initial}"
    for name in ("ada", "bo", "chen", "dana", "eli", "fay", "gus", "hana")
    for initial in "abcdef"
]
_ROLES = ("member", "developer", "maintainer", "operator")
_PLACES = ("docs/handbook", "reports/week", "repo/src/module", "wiki/page", "tickets/case")
_CALM = (None, "no incidents in 90 days", "passed the last access review", "on call this week, no findings")
_ALARMING = ("MFA was bypassed at the 6th attempt", "two failed logins from a new country this week")

_ORDINARY, _SUSPICIOUS, _UNKNOWN = "ordinary", "suspicious", "unknown"
_KINDS, _WEIGHTS = (_ORDINARY, _SUSPICIOUS, _UNKNOWN), (84, 9, 7)

TRUSTED_FROM = 0.6


def stream(seed: int) -> Iterator[dict[str, Any]]:
    """Situations without end, no two alike, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 -- a story, not a secret
    number = 0
    while True:
        number += 1
        yield _situation(chance, number)


def careful_verdict(situation: dict[str, Any]) -> str:
    """What the scripted reviewer says, who sees the situation and nobody's opinion."""
    trust = sum(situation["t3_tensor"].values()) / 3
    if situation.get("recent_history") in _ALARMING or trust < TRUSTED_FROM:
        return "require_attestation"
    return "allow"


def _situation(chance: random.Random, number: int) -> dict[str, Any]:
    kind = chance.choices(_KINDS, _WEIGHTS)[0]
    low, high = (0.32, 0.5) if kind is _UNKNOWN else (0.72, 0.97)
    parts = ("competence", "reliability", "integrity")
    situation: dict[str, Any] = {
        "action_type": "read",
        "actor_role": chance.choice(_ROLES),
        "actor_id": chance.choice(_PEOPLE),
        "t3_tensor": {part: round(chance.uniform(low, high), 2) for part in parts},
        "resource": f"{chance.choice(_PLACES)}-{number}",
    }
    history = chance.choice(_ALARMING if kind is _SUSPICIOUS else _CALM)
    return situation if history is None else {**situation, "recent_history": history}
