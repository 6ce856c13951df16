"""Who asks for what, as far as structured fields tell?"""

import random
from typing import Any

from tests.policyset.wording import Split

ACTIONS = {
    "read": 28,
    "write": 20,
    "commit": 17,
    "deploy": 14,
    "update_config": 8,
    "admin_action": 5,
    "delete_team": 4,
    "grant_role": 4,
}
_ROLES = {
    "viewer": 6,
    "member": 16,
    "developer": 28,
    "maintainer": 17,
    "operator": 10,
    "admin": 9,
    "service": 7,
    "agent": 7,
}
MACHINES = ("service", "agent")
_PEOPLE = {
    "train": [
        "ana",
        "ben",
        "cleo",
        "dov",
        "eva",
        "finn",
        "gil",
        "hugo",
        "iris",
        "jan",
        "kim",
        "lea",
        "mats",
        "nora",
        "oleg",
        "pia",
        "quin",
        "rosa",
        "sam",
        "tess",
    ],
    "test": ["abel", "britt", "cyrus", "dunja", "emre", "flora", "goran", "hedda", "igor", "june"],
}
_THINGS = {
    "train": [
        "billing",
        "catalog",
        "checkout",
        "mailer",
        "invoices",
        "reports",
        "roster",
        "search",
        "sessions",
        "stock",
        "themes",
        "webshop",
    ],
    "test": ["ledger", "tracker", "planner", "gateway", "archive", "payroll", "surveys", "maps"],
}
_YEAR = {"train": 2026, "test": 2027}
_PLACES = {
    "read": ("docs/public/{}.md", "docs/handbook/{}.md", "reports/{}.csv", "wiki/{}", "src/{}/core.py"),
    "write": ("docs/public/{}.md", "docs/handbook/{}.md", "reports/{}.csv", "wiki/{}", "src/{}/core.py"),
    "commit": ("{}/main", "{}/release-2", "{}/feature-login", "{}/fix-typo", "{}/cleanup", "{}/spike"),
    "deploy": ("env:staging/{}", "env:test/{}", "env:dev/{}", "env:production/{}", "env:live/{}"),
    "update_config": ("config/{}.yaml", "flags/{}", "limits/{}", "vault:{}-keys"),
    "admin_action": ("admin/users/{}", "admin/billing/{}", "admin/audit/{}"),
    "delete_team": ("team:{}",),
    "grant_role": ("role:admin/{}", "role:maintainer/{}", "role:viewer/{}"),
}
_SECRET, _CLIMBING = "secrets/{}/token", "docs/public/../{}/private.md"
# Centre of the trust and how far its parts lie apart; the last is anywhere.
_TRUST = (((0.94, 0.03), 38), ((0.85, 0.04), 24), ((0.75, 0.05), 12), ((0.65, 0.06), 8), ((0.54, 0.07), 6))
_TRUST_LOW = (((0.42, 0.07), 4), ((0.28, 0.10), 4), ((0.5, 0.5), 8))


def asked(split: Split, chance: random.Random) -> dict[str, Any]:
    """The wire form without any free text."""
    action, role = _drawn(ACTIONS, chance), _drawn(_ROLES, chance)
    person = chance.choice(_PEOPLE[split])
    return {
        "action_type": action,
        "actor_role": role,
        "actor_id": f"{role if role in MACHINES else person}-{chance.randrange(1, 30)}-{split}",
        "t3_tensor": _trust(chance),
        "resource": _resource(split, action, chance),
    }


def timestamp(split: Split, hours: tuple[int, int], chance: random.Random) -> str:
    """A time of day within `hours`, from and up to, in the split's own year."""
    month, day, minute = chance.randrange(1, 13), chance.randrange(1, 29), chance.randrange(60)
    return f"{_YEAR[split]}-{month:02}-{day:02}T{chance.randrange(*hours):02}:{minute:02}:00Z"


def metrics(chance: random.Random, *, drifting: bool = False) -> dict[str, Any]:
    """What the identity's own record shows."""
    low, high, trends = (
        (0.15, 0.4, ("declining",)) if drifting else (0.62, 0.98, ("stable", "rising", "stable"))
    )
    return {
        "level": chance.randrange(1, 6),
        "coherence": round(chance.uniform(low, high), 2),
        "trend": chance.choice(trends),
    }


def _resource(split: Split, action: str, chance: random.Random) -> str:
    place = chance.choice(_PLACES[action])
    if action in ("read", "write"):
        place = chance.choices((place, _SECRET, _CLIMBING), (92, 6, 2))[0]
    return place.format(chance.choice(_THINGS[split]))


def _trust(chance: random.Random) -> dict[str, float]:
    kinds, weights = zip(*_TRUST, *_TRUST_LOW, strict=True)
    centre, spread = chance.choices(kinds, weights)[0]
    parts = ("competence", "reliability", "integrity")
    trust = {
        part: round(min(1.0, max(0.0, chance.uniform(centre - spread, centre + spread))), 2) for part in parts
    }
    if chance.random() < 0.04:  # one part is ruined
        trust[chance.choice(parts)] = round(chance.uniform(0.02, 0.18), 2)
    return trust


def _drawn(weights: dict[str, int], chance: random.Random) -> str:
    return chance.choices(list(weights), list(weights.values()))[0]
