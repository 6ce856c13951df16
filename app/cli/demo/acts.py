"""What happens in the demo, act by act?"""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from app.cli.demo.people import Tally, at_work
from app.cli.demo.server import DemoServer
from app.cli.demo.story import Story, Trouble, gate_lines, guardrail_line
from app.client import AsyncClient, ClientError
from app.client.wire import Document
from app.domain.role import Role
from app.policy.rollouts import load_rollouts

_ROLLOUT = "read"
_PATIENCE_S = 120.0  # for one act; a machine that needs longer is too slow for the story
_LOOK_EVERY_S = 2.0
_RAMP_PAUSE_S = 3.0


@dataclass(frozen=True, slots=True)
class Cast:
    """Each person with their own key: nobody judges what their own key asked."""

    admin: AsyncClient
    caller: AsyncClient
    reviewer: AsyncClient
    owner: AsyncClient  # promotes and steers


async def play(server: DemoServer, story: Story) -> None:
    """The whole story. Raises `Trouble` where it does not go as it should."""
    steps = load_rollouts(server.policies_dir / "rollouts.yaml").get(_ROLLOUT).exposure
    async with AsyncExitStack() as stack:
        cast = await _cast(server, stack)
        tally = await stack.enter_async_context(at_work(cast.caller, cast.reviewer))
        await _rise(cast, story, tally, to="advisory", steps=steps)
        await _rise(cast, story, tally, to="enforced", steps=steps)
        await _answers_by_model(cast, story, tally)
        await _break(cast, story)
        await _aftermath(cast, story, tally)
    story.tell("end", f"That took {story.elapsed_s:.0f} s. Now `make serve`: the same with the real limits.")


async def _cast(server: DemoServer, stack: AsyncExitStack) -> Cast:
    admin = await stack.enter_async_context(AsyncClient(server.url, key=server.admin_key))

    async def person(name: str, *roles: Role) -> AsyncClient:
        key = await admin.post("/v1/keys", name=name, roles=list(roles))
        client = AsyncClient(server.url, key=key["key"], deadline_s=10.0)
        return await stack.enter_async_context(client)

    return Cast(
        admin,
        await person("caller", Role.CALLER),
        await person("reviewer", Role.REVIEWER),
        await person("owner", Role.OPERATOR, Role.APPROVER, Role.AUDITOR),
    )


async def _rise(cast: Cast, story: Story, tally: Tally, *, to: str, steps: tuple[float, ...]) -> None:
    """Wait for the gate, promote, and widen the exposure step by step."""
    rollout = await cast.owner.rollout(_ROLLOUT)
    story.chapter(f"`{_ROLLOUT}` is in {rollout['phase']}. What does a promotion to {to} need?")
    gate = await _passed(cast.owner, story, tally, to=to)
    revision = (await cast.owner.rollout(_ROLLOUT))["revision"]
    await cast.owner.promote(_ROLLOUT, to=to, reason=gate["sentence"], expected_revision=revision)
    story.tell(
        "promoted", f"Promoted: {_ROLLOUT} is in {to} for {steps[0]:.0%} of actors.", to=to, exposure=steps[0]
    )
    for step in steps[1:]:
        await asyncio.sleep(_RAMP_PAUSE_S)
        await cast.owner.post(f"/v1/rollouts/{_ROLLOUT}/exposure", exposure=step, reason="the demo's ramp")
        story.tell("exposure", f"Exposure: {step:.0%} of actors.", exposure=step)


async def _passed(owner: AsyncClient, story: Story, tally: Tally, *, to: str) -> Document:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        gate = await owner.gate(_ROLLOUT, to=to)
        story.tell("gate", "\n".join(gate_lines(gate)), gate=gate)
        if gate["outcome"] == "pass":
            return gate
        tally.check()
        await _must_not_have_rolled_back(owner)
        await asyncio.sleep(_LOOK_EVERY_S)
    raise Trouble(f"the gate to {to} did not pass within {_PATIENCE_S:.0f} s: {gate['sentence']}")


async def _must_not_have_rolled_back(owner: AsyncClient) -> None:
    status = (await owner.rollout(_ROLLOUT))["status"]
    if status["state"] == "rolled_back":
        raise Trouble(f"a guardrail was quicker: {status['sentence']}")


async def _answers_by_model(cast: Cast, story: Story, tally: Tally) -> None:
    """Let the model decide for a moment, and look at the guardrails meanwhile."""
    story.chapter("The model decides now; guardrails watch it.")
    before = tally.answered_by["model"]
    until = time.monotonic() + _PATIENCE_S
    while tally.answered_by["model"] - before < 15:
        if time.monotonic() > until:
            raise Trouble("the model answers too little")
        await asyncio.sleep(0.2)
    await _tell_example(cast.owner, story, tally)
    await _tell_guardrails(cast.owner, story)
    await _must_not_have_rolled_back(cast.owner)


async def _tell_example(owner: AsyncClient, story: Story, tally: Tally) -> None:
    """One decision in which the model saw what the rules cannot read."""
    if tally.example is None:
        return
    tally.asking.clear()  # a reason is worked out after all answers, and the callers leave no time
    decision = await owner.get(f"/v1/decisions/{tally.example}")
    tally.asking.set()
    advisory = decision["advisory"] or {}
    sentence = (
        f"One of them: the rules said {decision['legacy']['decision']}, the model {advisory.get('decision')}."
    )
    reasoning = advisory.get("reasoning")
    story.tell("example", f"{sentence} {reasoning}" if reasoning else sentence, decision=decision)


async def _tell_guardrails(owner: AsyncClient, story: Story) -> None:
    for guardrail in (await owner.guardrails(_ROLLOUT))["guardrails"]:
        story.tell("guardrail", guardrail_line(guardrail), guardrail=guardrail)


async def _break(cast: Cast, story: Story) -> None:
    """Make the model answer garbage and touch nothing until a guardrail has acted."""
    told = {guardrail_line(each) for each in (await cast.owner.guardrails(_ROLLOUT))["guardrails"]}
    story.chapter("Now the model breaks: every answer is garbage. Nobody does anything.")
    await cast.admin.post("/v1/drills/fault", fault="garbage")
    broken_at = time.monotonic()
    while (await cast.owner.rollout(_ROLLOUT))["phase"] == "enforced":
        if time.monotonic() - broken_at > _PATIENCE_S:
            raise Trouble("no guardrail noticed")
        for guardrail in (await cast.owner.guardrails(_ROLLOUT))["guardrails"]:
            line = guardrail_line(guardrail)
            if guardrail["outcome"] in ("warning", "breach") and line not in told:
                told.add(line)
                story.tell("guardrail", line, guardrail=guardrail)
        await asyncio.sleep(0.25)
    took_s = time.monotonic() - broken_at
    transition = await _last_rollback(cast.owner)
    sentence = f"Rolled back by itself after {took_s:.1f} s: {transition['reason']}"
    story.tell("rollback", sentence, seconds=round(took_s, 1), transition=transition)


async def _last_rollback(owner: AsyncClient) -> Document:
    transitions = (await owner.get(f"/v1/rollouts/{_ROLLOUT}/transitions"))["transitions"]
    rollbacks = [each for each in transitions if each["kind"] == "rollback"]
    if not rollbacks or not rollbacks[0]["automatic"]:
        raise Trouble("the phase fell without an automatic rollback")
    return dict(rollbacks[0])


async def _aftermath(cast: Cast, story: Story, tally: Tally) -> None:
    """Who answers now, what a promotion says, and what it all came to."""
    story.chapter("The legacy engine answers; the model is advisory again.")
    await cast.admin.post("/v1/drills/fault", fault=None)
    rollout = await cast.owner.rollout(_ROLLOUT)
    story.tell(
        "status", f"{_ROLLOUT} is in {rollout['phase']}: {rollout['status']['sentence']}", rollout=rollout
    )
    try:
        await cast.owner.promote(
            _ROLLOUT, to="enforced", reason="again", expected_revision=rollout["revision"]
        )
    except ClientError as error:
        story.tell("refused", f"Promoting again is refused: {error}", problem=error.problem)
    else:
        raise Trouble("a rolled-back rollout was promoted with its investigation open")
    story.tell(
        "summary",
        f"{tally.asked} questions, {tally.lost} without an answer. Answered by: {_counts(tally.answered_by)}. "
        f"Fallbacks: {_counts(tally.fallbacks)}. Verdicts: {tally.verdicts.total()}, "
        f"{tally.verdicts[False]} of them against the model.",
        asked=tally.asked,
        lost=tally.lost,
        answered_by=dict(tally.answered_by),
        decisions=dict(tally.decisions),
        fallbacks=dict(tally.fallbacks),
        overridden=tally.verdicts[False],
        reviewed=tally.verdicts.total(),
    )


def _counts(counter: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counter.items())) or "none"
