"""What is there to be seen on the pages: a server some of whose rollouts have lived a little."""

from dataclasses import dataclass
from datetime import timedelta

from app.domain.clock import rfc3339, to_us
from app.domain.phase import Phase
from app.services.succession import Act, Wish
from app.store import tables as t
from tests.services.plane import VERSION, FakeModel, Stage
from tests.services.test_validate import suite

HOSTILE = '<img src="//elsewhere/x" onerror="alert(1)"> \u202ereversed'


@dataclass(frozen=True)
class Furniture:
    """Names of what the stage now has."""

    decision: str
    waiting: str  # a decision whose caller waits for a person
    validation: str
    review: str


def candidate() -> FakeModel:
    """The model of a second version, `fake-2`."""
    return FakeModel(version_id="fake-2")


async def furnish(stage: Stage) -> Furniture:
    """`read` enforced, with a candidate; `write` in advisory, where a caller waits; `deploy` rolled back."""
    operator = stage.principal("operator")
    await stage.enter("read", Phase.ENFORCED, exposure=0.5)
    wish = Wish(Act.CANDIDATE, "smaller and as good", "fake-2")
    await stage.services.succession.change("read", wish, by=operator)
    first = await stage.decide("read", resource=HOSTILE, details="allow", recent_history=HOSTILE)
    for number in range(30):
        model = "deny" if number % 7 == 0 else "require_attestation" if number % 5 == 0 else "allow"
        await stage.decide("read", actor=f"actor-{number}", model=model)
    await stage.until(lambda: stage.rows(t.candidate_advisories) >= 20)
    for row in stage.queue()[:6]:
        await stage.judge(row["decision_id"], "allow")
    await stage.enter("write", Phase.ADVISORY)
    waiting = await stage.decide("write", legacy="require_attestation", model="deny")
    await stage.enter("deploy", Phase.ENFORCED)
    for number in range(15):
        await stage.decide("deploy", actor=f"actor-{number}", model="allow" if number < 9 else "malformed")
    await stage.until(lambda: stage.rows(t.advisories) >= 40)
    assert [made["kind"] for made in await stage.looks(times=3, every_s=5)] == ["rollback"]
    validation = await _administration(stage)
    return Furniture(first["id"], waiting["id"], validation, stage.queue(who="another_reviewer")[0]["id"])


async def _administration(stage: Stage) -> str:
    operator, admin = stage.principal("operator"), stage.principal("admin")
    now = stage.clock.now()
    await stage.services.freezes.add(
        kind="deny",
        rollout="write",
        starts_at=rfc3339(to_us(now)),
        ends_at=rfc3339(to_us(now + timedelta(days=2))),
        weekly=False,
        zone="UTC",
        reason="the end of the quarter",
        by=operator,
    )
    await stage.services.webhooks.add(url="https://hooks.example/x", kinds=["transition"], by=operator)
    await stage.services.users.create(name="rob", roles=["reviewer"], actors=["rob.b"], by=admin)
    suite(stage, "allow", "deny", "malformed")
    found = await stage.services.validations.run(VERSION, suites=[], against=None, reasons=False, by=operator)
    return str(found["id"])
