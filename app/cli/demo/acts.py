"""What do a rollout's owner and the model live through, act by act?"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from itertools import islice

from app.cli.demo.people import Cast, Tally, at_work, stream
from app.cli.demo.story import Story, Trouble, checklist, guardrail_line, missing, missing_line
from app.client import AsyncClient, ClientError
from app.client.wire import Document

_PATIENCE_S = 300.0  # for one act; a machine that needs longer is too slow for the story
_LOOK_EVERY_S = 2.0
_RAMP_PAUSE_S = 3.0
_MODEL_ANSWERS = 15
_PROOFS = 5
_ANOTHER_SEED = 7

_PHASES = {
    "shadow": "The rules answer every caller. The model is asked in the background and compared with them.",
    "advisory": "The rules still answer. The model recommends; a reviewer, who does not look, judges what is drawn.",
}
_OUTCOMES = {"pass": "passed", "insufficient": "not yet", "fail": "failed", "error": "cannot be judged"}


async def play(people: Cast, story: Story) -> None:
    """The whole story. Raises `Trouble` where it does not go as it should."""
    async with at_work(people) as tally:
        acts = Acts("read", people.owner, story, tally)
        for phase in ("shadow", "advisory"):
            story.chapter(f"`read` is in {phase.upper()}.", _PHASES[phase])
            await acts.rise(until=1.0)
        await acts.model_answers()
        await people.admin.post("/v1/drills/fault", fault="garbage")
        await acts.breaks()
        await acts.rules_answer(people.caller)
        await people.admin.post("/v1/drills/fault", fault=None)
        await acts.model_is_back()
        await acts.promotion_is_refused()
        _sum_up(tally, story)


class Acts:
    """What the owner of the rollout `name` does and sees."""

    def __init__(self, name: str, owner: AsyncClient, story: Story, tally: Tally) -> None:
        self._name, self._owner, self._story, self._tally = name, owner, story, tally

    async def rise(self, *, until: float) -> None:
        """Wait for the gate to the next phase, promote, and widen the exposure step by step `until` a share."""
        told: set[str] | None = None
        async for rollout in self._looks(_LOOK_EVERY_S, "the gate did not pass"):
            _must_stand(rollout)
            to = "advisory" if rollout["phase"] == "shadow" else "enforced"
            gate = await self._owner.gate(self._name, to=to)
            told = self._tell_gate(gate, told)
            if gate["outcome"] == "pass":
                break
        revision = rollout["revision"]
        await self._owner.promote(self._name, to=to, reason=gate["sentence"], expected_revision=revision)
        first, *steps = [step for step in rollout["exposure_steps"] if step <= until]
        sentence = f"The owner promotes: {self._name} is in {to} for {first:.0%} of actors."
        self._story.tell("promoted", sentence, rollout=self._name, to=to, exposure=first)
        for step in steps:
            await asyncio.sleep(_RAMP_PAUSE_S)
            wider = {"exposure": step, "reason": "the demo's ramp"}
            await self._owner.post(f"/v1/rollouts/{self._name}/exposure", **wider)
            self._story.tell("exposure", f"The owner widens it to {step:.0%} of actors.", exposure=step)

    async def model_answers(self) -> None:
        """Let the model decide for a moment, and look at the guardrails meanwhile."""
        self._story.chapter(
            f"`{self._name}` is in ENFORCED.",
            "The model answers; the rules stand in where it fails. Guardrails gather evidence that a limit is broken:",
            "at 500 they roll back, which at most 1 in 500 healthy rollouts would ever reach.",
        )
        await self.decides(_MODEL_ANSWERS)
        await self._tell_example()
        self._story.tell("watched", "What the guardrails see:")
        for guardrail in (await self._owner.rollout(self._name))["guardrails"]:
            self._tell_guardrail(guardrail)

    async def decides(self, times: int) -> None:
        """Let the model decide so many times."""
        enough = self._tally.answered_by["model"] + times
        async for rollout in self._looks(0.2, "the model answers too little"):
            _must_stand(rollout)
            if self._tally.answered_by["model"] >= enough:
                break
        self._story.tell("deciding", f"The model has decided {times} times since.")

    async def breaks(self) -> None:
        """Touch nothing until a guardrail has acted on what the broken model answers."""
        self._story.chapter(
            "The model BREAKS: a drill makes every answer of it garbage. Nobody does anything."
        )
        broken_at = time.monotonic()
        told = {each["sentence"] for each in (await self._owner.rollout(self._name))["guardrails"]}
        async for rollout in self._looks(0.25, "no guardrail noticed"):
            if rollout["phase"] != "enforced":
                break
            for guardrail in rollout["guardrails"]:
                if guardrail["outcome"] in ("warning", "breach") and guardrail["sentence"] not in told:
                    told.add(guardrail["sentence"])
                    self._tell_guardrail(guardrail)
        took_s = round(time.monotonic() - broken_at, 1)
        past = await self._owner.get(f"/v1/rollouts/{self._name}/transitions", limit=1)
        transition = past["transitions"][0]
        if (transition["kind"], transition["automatic"]) != ("rollback", True):
            raise Trouble("the phase fell without an automatic rollback")
        sentence = f"ROLLED BACK by {transition['actor']} after {took_s} s, because of"
        below = [transition["reason"]]
        self._story.tell("rollback", sentence, below=below, seconds=took_s, transition=transition)
        self._story.chapter(f"`{self._name}` is in {rollout['phase'].upper()} again.")

    async def rules_answer(self, caller: AsyncClient) -> None:
        answers = [await caller.decide(situation) for situation in islice(stream(_ANOTHER_SEED), _PROOFS)]
        by = {answer.answered_by for answer in answers}
        if by != {"legacy"}:
            raise Trouble(f"after the rollback {by} answered")
        sentence = f"The model is still broken; the next {_PROOFS} questions are all answered by the rules."
        self._story.tell("legacy", sentence)

    async def model_is_back(self) -> None:
        """After so many failures the model is asked again once a question to it went well."""
        async for _ in self._looks(0.2, "the model did not come back"):
            with contextlib.suppress(ClientError):
                await self._owner.get("/health/ready")
                return

    async def promotion_is_refused(self) -> None:
        revision = (await self._owner.rollout(self._name))["revision"]
        try:
            await self._owner.promote(self._name, to="enforced", reason="again", expected_revision=revision)
        except ClientError as error:
            if error.type != "gate-not-met":
                raise
            sentence = "The model is mended and the owner tries to promote it again. Refused, because"
            below = checklist(error.problem["gate"])
            self._story.tell("refused", sentence, below=below, problem=error.problem)
        else:
            raise Trouble("a rolled-back rollout was promoted with its investigation open")

    async def _looks(self, every_s: float, trouble: str) -> AsyncIterator[Document]:
        """The rollout as it is now, again and again until the patience ends."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            yield await self._owner.rollout(self._name)
            self._tally.check()
            await asyncio.sleep(every_s)
        raise Trouble(f"{trouble} within {_PATIENCE_S:.0f} s")

    def _tell_gate(self, gate: Document, told: set[str] | None) -> set[str]:
        """The whole checklist where something new holds, else how much is missing; what is missing now."""
        now = set(missing(gate))
        if now == told:
            self._story.tell("gate", f"  still missing: {missing_line(gate)}", gate=gate)
        else:
            sentence = f"The gate to {gate['to']}: {_OUTCOMES[gate['outcome']]}"
            self._story.tell("gate", sentence, below=checklist(gate), gate=gate)
        return now

    def _tell_guardrail(self, guardrail: Document) -> None:
        self._story.tell("guardrail", f"  {guardrail_line(guardrail)}", guardrail=guardrail)

    async def _tell_example(self) -> None:
        """One decision in which the model saw what the rules cannot read."""
        if self._tally.example is None:
            return
        self._tally.asking.clear()  # a reason is worked out after all answers, and the callers leave no time
        decision = await self._owner.get(f"/v1/decisions/{self._tally.example}")
        self._tally.asking.set()
        legacy, advisory = decision["legacy"]["decision"], decision["advisory"] or {}
        sentence = f"In one of them the rules would have said {legacy}. Why the model did not:"
        self._story.tell("example", sentence, below=[str(advisory.get("reasoning"))], decision=decision)


def _must_stand(rollout: Document) -> None:
    if rollout["status"]["state"] == "rolled_back":
        raise Trouble(f"a guardrail was quicker: {rollout['status']['sentence']}")


def _sum_up(tally: Tally, story: Story) -> None:
    """What it all came to."""

    def counts(counter: Counter[str]) -> str:
        return ", ".join(f"{name} {n}" for name, n in sorted(counter.items())) or "never"

    reviewed, overridden = tally.verdicts.total(), tally.verdicts[False]
    story.tell(
        "summary",
        f"In all {tally.asked} questions, {tally.lost} of them without an answer.",
        below=[
            f"answered by: {counts(tally.answered_by)}",
            f"the rules stood in for the model: {counts(tally.fallbacks)}",
            f"verdicts: {reviewed}, {overridden} of them against the model",
        ],
        asked=tally.asked,
        lost=tally.lost,
        answered_by=dict(tally.answered_by),
        fallbacks=dict(tally.fallbacks),
        overridden=overridden,
        reviewed=reviewed,
    )
    if tally.lost:
        raise Trouble(f"{tally.lost} questions got no answer")
