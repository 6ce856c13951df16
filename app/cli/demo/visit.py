"""What is there to be seen in the console when the story has been told?"""

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from app.cli.demo.people import stream
from app.cli.demo.story import Story
from app.client import AsyncClient, ClientError
from app.domain.clock import rfc3339, to_us

_SEED = 11
_AT_A_TIME = 4
_PAUSE_S = 0.5  # the model looks at each in the background
_MENDED_WITHIN_S = 60.0
_QUESTIONS = {
    "commit": 48,
    "write": 24,
    "deploy": 8,
    "read": 20,
}  # in this order, since read's reviews stay open
_PEOPLE = {
    "olga": ["operator", "approver", "auditor", "reviewer"],
    "rob": ["reviewer"],
    "ada": ["auditor"],
}
_GUEST = "olga"
# The rules ask a person about whom nobody has reason to trust yet.
_IN_DOUBT = {
    "action_type": "read",
    "actor_role": "member",
    "actor_id": "newcomer",
    "t3_tensor": {"competence": 0.44, "reliability": 0.38, "integrity": 0.41},
    "resource": "repo/src/module-9",
    "details": "needs it for the release on Friday",
}


async def prepare(admin: AsyncClient, owner: AsyncClient, caller: AsyncClient, story: Story) -> str:
    """Leave work for people on the server: returns the path of a link that lets a guest into the console once."""
    story.chapter("The doors open.", "Callers go on, and nobody judges: what is drawn or waits now is yours.")
    for name, roles in _PEOPLE.items():
        await admin.post("/v1/users", name=name, roles=roles, actors=[f"{name}.a"])
    now = to_us(datetime.now(UTC))
    until = to_us(datetime.now(UTC) + timedelta(days=2))
    hours = {"starts_at": rfc3339(now), "ends_at": rfc3339(until), "zone": "UTC", "weekly": False}
    freeze = {"kind": "deny", "rollout": "deploy-production", "reason": "the end of the quarter"}
    await owner.post("/v1/freezes", **freeze, **hours)
    versions = (await owner.get("/v1/versions"))["versions"]
    other = next(each["id"] for each in versions if each["parent"] and each["loaded"] is not None)
    wish = {
        "action": "candidate",
        "version": other,
        "reason": "is it better for being shown the rules' answer?",
    }
    await owner.post("/v1/rollouts/write/version", **wish)
    situations = stream(_SEED)
    await _mended(caller, situations)
    for action, number in _QUESTIONS.items():
        await _ask(caller, action, islice(situations, number))
        if action == "commit":
            await _rise(owner, action)
    await caller.decide(_IN_DOUBT)
    made = await admin.post(f"/v1/users/{_GUEST}/link")
    return str(made["path"])


async def _mended(caller: AsyncClient, situations: Iterator[dict[str, Any]]) -> None:
    """Until the model is asked again: after so many failures that takes a question that goes well."""
    async with asyncio.timeout(_MENDED_WITHIN_S):
        while True:
            with contextlib.suppress(ClientError):
                await caller.get("/health/ready")
                return
            await caller.decide(next(situations))
            await asyncio.sleep(_PAUSE_S)


async def _ask(caller: AsyncClient, action: str, situations: Iterator[dict[str, Any]]) -> None:
    async def ask() -> None:
        for situation in situations:
            await caller.decide({**situation, "action_type": action})
            await asyncio.sleep(_PAUSE_S)

    await asyncio.gather(*(ask() for _ in range(_AT_A_TIME)))


async def _rise(owner: AsyncClient, name: str) -> None:
    """To advisory, if its gate passes by now: what comes of it is seen on its page either way."""
    rollout = await owner.rollout(name)
    try:
        await owner.promote(name, to="advisory", reason="it agrees", expected_revision=rollout["revision"])
    except ClientError as error:
        if error.type != "gate-not-met":
            raise
