"""What happens in the demo, act by act?"""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from app.cli.demo.people import Tally, at_work, stream
from app.cli.demo.server import DemoServer
from app.cli.demo.story import Story, Trouble, checklist, guardrail_line, missing, missing_line
from app.client import AsyncClient, ClientError
from app.client.wire import Document
from app.domain.role import Role
from app.policy.rollouts import load_rollouts

_ROLLOUT = "read"
_PATIENCE_S = 300.0  # for one act; a machine that needs longer is too slow for the story
_LOOK_EVERY_S = 2.0
_RAMP_PAUSE_S = 3.0
_MODEL_ANSWERS = 15
_PROOFS = 5
_ANOTHER_SEED = 7
_CALLER_DEADLINE_S = 30.0  # the server's own is half of that: whoever waits longer has lost something

_PHASES = {
    "shadow": "The rules answer every caller. The model is asked in the background and compared with them.",
    "advisory": "The rules still answer. The model recommends; a reviewer, who does not look, judges what is drawn.",
}
_OUTCOMES = {"pass": "passed", "insufficient": "not yet", "fail": "failed", "error": "cannot be judged"}


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
        client = AsyncClient(server.url, key=key["key"], deadline_s=_CALLER_DEADLINE_S)
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
    story.chapter(f"`{_ROLLOUT}` is in {rollout['phase'].upper()}.", _PHASES[rollout["phase"]])
    gate = await _passed(cast.owner, story, tally, to=to)
    revision = (await cast.owner.rollout(_ROLLOUT))["revision"]
    await cast.owner.promote(_ROLLOUT, to=to, reason=gate["sentence"], expected_revision=revision)
    story.tell(
        "promoted",
        f"The owner promotes: {_ROLLOUT} is in {to} for {steps[0]:.0%} of actors.",
        to=to,
        exposure=steps[0],
    )
    for step in steps[1:]:
        await asyncio.sleep(_RAMP_PAUSE_S)
        await cast.owner.post(f"/v1/rollouts/{_ROLLOUT}/exposure", exposure=step, reason="the demo's ramp")
        story.tell("exposure", f"The owner widens it to {step:.0%} of actors.", exposure=step)


async def _passed(owner: AsyncClient, story: Story, tally: Tally, *, to: str) -> Document:
    until = time.monotonic() + _PATIENCE_S
    told: set[str] | None = None
    while time.monotonic() < until:
        gate = await owner.gate(_ROLLOUT, to=to)
        told = _tell_gate(story, gate, told)
        if gate["outcome"] == "pass":
            return gate
        tally.check()
        await _must_not_have_rolled_back(owner)
        await asyncio.sleep(_LOOK_EVERY_S)
    raise Trouble(f"the gate to {to} did not pass within {_PATIENCE_S:.0f} s: {gate['sentence']}")


def _tell_gate(story: Story, gate: Document, told: set[str] | None) -> set[str]:
    """The whole checklist where something new holds, else how much is missing; what is missing now."""
    now = set(missing(gate))
    if now == told:
        story.tell("gate", f"  still missing: {missing_line(gate)}", gate=gate)
        return now
    sentence = f"The gate to {gate['to']}: {_OUTCOMES[gate['outcome']]}"
    story.tell("gate", sentence, below=checklist(gate), gate=gate)
    return now


async def _must_not_have_rolled_back(owner: AsyncClient) -> None:
    status = (await owner.rollout(_ROLLOUT))["status"]
    if status["state"] == "rolled_back":
        raise Trouble(f"a guardrail was quicker: {status['sentence']}")


async def _answers_by_model(cast: Cast, story: Story, tally: Tally) -> None:
    """Let the model decide for a moment, and look at the guardrails meanwhile."""
    story.chapter(
        f"`{_ROLLOUT}` is in ENFORCED.",
        "The model answers; the rules stand in where it fails. Guardrails gather evidence that a limit is broken:",
        "at 500 they roll back, which at most 1 in 500 healthy rollouts would ever reach.",
    )
    before = tally.answered_by["model"]
    until = time.monotonic() + _PATIENCE_S
    while tally.answered_by["model"] - before < _MODEL_ANSWERS:
        if time.monotonic() > until:
            raise Trouble("the model answers too little")
        await _must_not_have_rolled_back(cast.owner)
        await asyncio.sleep(0.2)
    story.tell(
        "deciding",
        f"The model has decided {_MODEL_ANSWERS} times since.",
        answers=tally.answered_by["model"] - before,
    )
    await _tell_example(cast.owner, story, tally)
    story.tell("watched", "What the guardrails see:")
    for guardrail in (await cast.owner.guardrails(_ROLLOUT))["guardrails"]:
        story.tell("guardrail", f"  {guardrail_line(guardrail)}", guardrail=guardrail)
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
        f"In one of them the rules would have said {decision['legacy']['decision']}. Why the model did not:"
    )
    story.tell("example", sentence, below=[str(advisory.get("reasoning"))], decision=decision)


async def _break(cast: Cast, story: Story) -> None:
    """Make the model answer garbage and touch nothing until a guardrail has acted."""
    told = {guardrail_line(each) for each in (await cast.owner.guardrails(_ROLLOUT))["guardrails"]}
    story.chapter("The model BREAKS: a drill makes every answer of it garbage. Nobody does anything.")
    await cast.admin.post("/v1/drills/fault", fault="garbage")
    broken_at = time.monotonic()
    while (await cast.owner.rollout(_ROLLOUT))["phase"] == "enforced":
        if time.monotonic() - broken_at > _PATIENCE_S:
            raise Trouble("no guardrail noticed")
        for guardrail in (await cast.owner.guardrails(_ROLLOUT))["guardrails"]:
            line = guardrail_line(guardrail)
            if guardrail["outcome"] in ("warning", "breach") and line not in told:
                told.add(line)
                story.tell("guardrail", f"  {line}", guardrail=guardrail)
        await asyncio.sleep(0.25)
    took_s = time.monotonic() - broken_at
    transition = await _last_rollback(cast.owner)
    sentence = f"ROLLED BACK by {transition['actor']} after {took_s:.1f} s, because of"
    story.tell(
        "rollback",
        sentence,
        below=[transition["reason"]],
        seconds=round(took_s, 1),
        transition=transition,
    )


async def _last_rollback(owner: AsyncClient) -> Document:
    transitions = (await owner.get(f"/v1/rollouts/{_ROLLOUT}/transitions"))["transitions"]
    rollbacks = [each for each in transitions if each["kind"] == "rollback"]
    if not rollbacks or not rollbacks[0]["automatic"]:
        raise Trouble("the phase fell without an automatic rollback")
    return dict(rollbacks[0])


async def _aftermath(cast: Cast, story: Story, tally: Tally) -> None:
    """Who answers now, what a promotion says, and what it all came to."""
    rollout = await cast.owner.rollout(_ROLLOUT)
    story.chapter(f"`{_ROLLOUT}` is in {rollout['phase'].upper()} again.")
    await _rules_answer(cast.caller, story)
    await cast.admin.post("/v1/drills/fault", fault=None)
    await _promotion_is_refused(cast.owner, story, rollout)
    reviewed, overridden = tally.verdicts.total(), tally.verdicts[False]
    story.tell(
        "summary",
        f"In all {tally.asked} questions, {tally.lost} of them without an answer.",
        below=[
            f"answered by: {_counts(tally.answered_by)}",
            f"the rules stood in for the model: {_counts(tally.fallbacks)}",
            f"verdicts: {reviewed}, {overridden} of them against the model",
        ],
        asked=tally.asked,
        lost=tally.lost,
        answered_by=dict(tally.answered_by),
        decisions=dict(tally.decisions),
        fallbacks=dict(tally.fallbacks),
        overridden=overridden,
        reviewed=reviewed,
    )
    if tally.lost:
        raise Trouble(f"{tally.lost} questions got no answer")


async def _rules_answer(caller: AsyncClient, story: Story) -> None:
    answers = [
        await caller.decide(situation)
        for _, situation in zip(range(_PROOFS), stream(_ANOTHER_SEED), strict=False)
    ]
    by = {answer.answered_by for answer in answers}
    if by != {"legacy"}:
        raise Trouble(f"after the rollback {by} answered")
    story.tell(
        "legacy", f"The model is still broken; the next {_PROOFS} questions are all answered by the rules."
    )


async def _promotion_is_refused(owner: AsyncClient, story: Story, rollout: Document) -> None:
    try:
        await owner.promote(_ROLLOUT, to="enforced", reason="again", expected_revision=rollout["revision"])
    except ClientError as error:
        if error.type != "gate-not-met":
            raise
        sentence = "The model is mended and the owner tries to promote it again. Refused, because"
        below = checklist(error.problem["gate"])
        story.tell("refused", sentence, below=below, problem=error.problem)
    else:
        raise Trouble("a rolled-back rollout was promoted with its investigation open")


def _counts(counter: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counter.items())) or "never"
