"""Who acts in the demo beside the model: callers who ask, a reviewer who judges and an owner who steers?

Three kinds of readers are asked about: trusted people who read ordinary things; trusted people in whose
history something is wrong, which the rules cannot read; and people whom nobody has reason to trust yet.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from app.client import AsyncClient, ClientError, Decision
from app.domain.role import Role

# About as many questions as two cores let the model look at. In enforced each caller waits for the model,
# so that four of them are answered well within the deadline even on a busy machine.
_CALLERS = 4
_PAUSE_S = 0.8
_REVIEW_PAUSE_S = 0.3
_CALLER_DEADLINE_S = 30.0  # the server's own is half of that: whoever waits longer has lost something
_JUDGED = ("read", "write", "commit")  # the rest waits for whoever looks at the console
_READ = ("read",)
_SEED = 20_260_101

_PEOPLE = [
    f"{name}.{initial}"
    for name in ("ada", "bo", "chen", "dana", "eli", "fay", "gus", "hana")
    for initial in "abcdef"
]
_ROLES = ("member", "developer", "maintainer", "operator")
_PLACES = ("docs/handbook", "reports/week", "repo/src/module", "wiki/page", "tickets/case")
_PLACES_OF = {
    "deploy": ("env:staging/shop", "env:production/shop"),
    "grant_role": ("team:platform", "team:payments"),
}
_CALM = (None, "no incidents in 90 days", "passed the last access review", "on call this week, no findings")
_ALARMING = ("MFA was bypassed at the 6th attempt", "two failed logins from a new country this week")

_ORDINARY, _SUSPICIOUS, _UNKNOWN = "ordinary", "suspicious", "unknown"
_KINDS, _WEIGHTS = (_ORDINARY, _SUSPICIOUS, _UNKNOWN), (84, 9, 7)

TRUSTED_FROM = 0.6


@dataclass(frozen=True, slots=True)
class Cast:
    """Each with their own key: nobody judges what their own key asked."""

    admin: AsyncClient
    caller: AsyncClient
    reviewer: AsyncClient
    owner: AsyncClient


@asynccontextmanager
async def cast(url: str, admin_key: str) -> AsyncIterator[Cast]:
    """Everybody who acts, for as long as the block runs."""
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(AsyncClient(url, key=admin_key))

        async def person(name: str, *roles: Role) -> AsyncClient:
            made = await admin.post("/v1/keys", name=name, roles=list(roles))
            client = AsyncClient(url, key=made["key"], deadline_s=_CALLER_DEADLINE_S)
            return await stack.enter_async_context(client)

        yield Cast(
            admin,
            caller=await person("caller", Role.CALLER),
            reviewer=await person("reviewer", Role.REVIEWER),
            owner=await person("owner", Role.OPERATOR, Role.APPROVER, Role.AUDITOR),
        )


class Tally:
    """What came of the questions and the verdicts so far."""

    def __init__(self) -> None:
        self.answered_by: Counter[str] = Counter()
        self.fallbacks: Counter[str] = Counter()
        self.example: str | None = None  # the last decision in which the model was stricter than the rules
        self.lost = 0
        self.verdicts: Counter[bool | None] = Counter()
        self.judging: asyncio.Task[None] | None = None
        self.asking = asyncio.Event()  # callers ask while it is set
        self.asking.set()

    def check(self) -> None:
        """Raises what ended the reviewer's work; callers are never ended by anything."""
        if self.judging is not None and self.judging.done():
            self.judging.result()

    def count(self, decision: Decision) -> None:
        if decision.source != "server":
            self.lost += 1
            return
        self.answered_by[str(decision.answered_by)] += 1
        if reason := decision.raw.get("fallback_reason"):
            self.fallbacks[reason] += 1
        stricter = (decision.answered_by, decision.decision) == ("model", "require_attestation")
        if stricter and decision.raw["legacy"]["decision"] == "allow":
            self.example = decision.id

    @property
    def asked(self) -> int:
        return self.answered_by.total() + self.lost


@asynccontextmanager
async def at_work(people: Cast, actions: Sequence[str] = _READ, *, seed: int = _SEED) -> AsyncIterator[Tally]:
    """Callers, who ask about the actions in turn, and the reviewer, for as long as the block runs."""
    tally, situations = Tally(), stream(seed, actions)
    tally.judging = asyncio.create_task(_judge(people.reviewer, tally))
    asking = (asyncio.create_task(_ask(people.caller, situations, tally)) for _ in range(_CALLERS))
    tasks = [tally.judging, *asking]
    try:
        yield tally
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(client: AsyncClient, situations: Iterator[dict[str, Any]], tally: Tally) -> None:
    while await tally.asking.wait():
        tally.count(await client.decide(next(situations)))
        await asyncio.sleep(_PAUSE_S)


async def _judge(client: AsyncClient, tally: Tally) -> None:
    while True:
        for review in await client.reviews(status="open"):
            if review["situation"] is None or review["rollout"] not in _JUDGED:
                continue
            try:
                feedback = await client.verdict(review["id"], decision=careful_verdict(review["situation"]))
            except ClientError as error:
                if error.status != 409:  # it closed by itself between the list and the verdict
                    raise
                continue
            tally.verdicts[feedback["match"]] += 1
        await asyncio.sleep(_REVIEW_PAUSE_S)


def stream(seed: int, actions: Sequence[str] = _READ) -> Iterator[dict[str, Any]]:
    """Situations without end, the actions in turn, no two alike, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 -- a story, not a secret
    for number, action in enumerate(cycle(actions), 1):
        yield _situation(chance, action, number)


def careful_verdict(situation: dict[str, Any]) -> str:
    """What the scripted reviewer says, who sees the situation and nobody's opinion."""
    trust = sum(situation["t3_tensor"].values()) / 3
    if situation.get("recent_history") in _ALARMING or trust < TRUSTED_FROM:
        return "require_attestation"
    return "allow"


def _situation(chance: random.Random, action: str, number: int) -> dict[str, Any]:
    kind = chance.choices(_KINDS, _WEIGHTS)[0]
    low, high = (0.32, 0.5) if kind is _UNKNOWN else (0.72, 0.97)
    parts = ("competence", "reliability", "integrity")
    situation: dict[str, Any] = {
        "action_type": action,
        "actor_role": chance.choice(_ROLES),
        "actor_id": chance.choice(_PEOPLE),
        "t3_tensor": {part: round(chance.uniform(low, high), 2) for part in parts},
        "resource": f"{chance.choice(_PLACES_OF.get(action, _PLACES))}-{number}",
    }
    history = chance.choice(_ALARMING if kind is _SUSPICIOUS else _CALM)
    return situation if history is None else {**situation, "recent_history": history}
