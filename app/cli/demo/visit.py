"""What is there to be seen in the console when the story has been told?"""

from datetime import UTC, datetime, timedelta
from itertools import islice

from app.cli.demo.acts import Acts
from app.cli.demo.people import Cast, at_work, stream
from app.cli.demo.story import Story
from app.domain.clock import rfc3339, to_us

_SEED = 11
# Asked in turn: every second question lets `write` rise, the third of `commit` never agree enough.
_ACTIONS = ("write", "commit", "write", "read", "write", "deploy", "write", "commit", "write", "grant_role")
_LEFT_OPEN = 16  # reviews of `read`, for the guest
_PEOPLE = {
    "olga": ["operator", "approver", "auditor", "reviewer"],
    "rob": ["reviewer"],
    "ada": ["auditor"],
}
# The rules ask a person about whom nobody has reason to trust yet.
_IN_DOUBT = {
    "action_type": "read",
    "actor_role": "member",
    "actor_id": "newcomer",
    "t3_tensor": {"competence": 0.44, "reliability": 0.38, "integrity": 0.41},
    "resource": "repo/src/module-9",
    "details": "needs it for the release on Friday",
}


async def prepare(people: Cast, story: Story) -> str:
    """Leave a console worth a look: returns the path of a link that lets a guest in once.

    `read` is rolled back by the story; `write` rises until half of its actors get the model's answers, `commit`
    stays in shadow with a candidate beside its version, and what is drawn at the end waits for a person.
    """
    story.chapter("The doors open.", "Callers ask about more than reading; `write` takes the same way up.")
    await _furnish(people)
    async with at_work(people, _ACTIONS, seed=_SEED) as tally:
        acts = Acts("write", people.owner, story, tally)
        await acts.rise(until=1.0)
        await acts.rise(until=0.5)
        await acts.decides(8)
    for situation in (*islice(stream(_SEED), _LEFT_OPEN), _IN_DOUBT):
        await people.caller.decide(situation)
    link = await people.admin.post("/v1/users/olga/link")
    return str(link["path"])


async def _furnish(people: Cast) -> None:
    """People who may sign in, a freeze, and a candidate."""
    for name, roles in _PEOPLE.items():
        await people.admin.post("/v1/users", name=name, roles=roles, actors=[f"{name}.a"])
    now = datetime.now(UTC)
    starts_at, ends_at = (rfc3339(to_us(now + timedelta(days=days))) for days in (0, 2))
    freeze = {"kind": "deny", "rollout": "deploy-production", "reason": "the end of the quarter"}
    hours = {"starts_at": starts_at, "ends_at": ends_at, "zone": "UTC", "weekly": False}
    await people.owner.post("/v1/freezes", **freeze, **hours)
    versions = (await people.owner.get("/v1/versions"))["versions"]
    other = next(each["id"] for each in versions if each["parent"] and each["loaded"] is not None)
    wish = {"action": "candidate", "version": other, "reason": "better if shown the rules' answer?"}
    await people.owner.post("/v1/rollouts/commit/version", **wish)
