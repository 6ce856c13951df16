"""How is a model asked that another server holds, and what comes back when that server fails?

Prompt, limits and outcomes are those of the local engine. What a server over the network cannot promise
is the same answer to the bit: that depends on what it computes beside it.
"""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx

from app.domain.advisory import Advisory, Outcome, Reasoning
from app.domain.decision import Decision
from app.domain.situation import Situation
from app.engines.model.breaker import CircuitBreaker
from app.engines.model.completions import (
    CompletionServer,
    Failure,
    Unreachable,
    harmless,
    read_labels,
    read_one_label,
)
from app.engines.model.engine import Engine, ModelState, ModelStatus
from app.engines.model.prompt import REASON_CUE, Line, situation_text, visible
from app.engines.model.reasons import Effect, unexplained, worded
from app.engines.model.remote_watch import PAUSES_S, ServerWatch
from app.engines.model.version import ModelVersion, Remote, prompt_of
from app.engines.model.wire import Answer, Priority
from app.errors import Forbidden, PolicyError, SettingsError

_FIELDS = 16  # of a caller who sends hundreds, the first ones
_FAIR_TRIAL_S = 0.25  # who had less time than this shows nothing about the server


class RemoteModel(Engine):
    """One version on another server; for one event loop.

    At most `connections` questions are on their way. Each is sent once, and once more only where no
    connection came about.
    """

    def __init__(
        self,
        version: ModelVersion,
        *,
        policies_dir: Path,
        connections: int = 64,
        explain_deadline_s: float = 20.0,
        pauses_s: Sequence[float] = PAUSES_S,
        breaker: CircuitBreaker | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Nothing is asked yet.

        Raises `PolicyError` where the version wants what a server cannot give, `SettingsError` where
        the variable that holds the key is not set.
        """
        super().__init__(
            version, queue_limit=connections, explain_deadline_s=explain_deadline_s, breaker=breaker
        )
        self._remote = _checked(version)
        prompt = prompt_of(version, policies_dir=policies_dir)
        self._prefix = "".join(piece.text if piece.ours else harmless(piece.text) for piece in prompt.pieces)
        self._suffix = prompt.suffix
        self._key = _key(self._remote, environ)
        self._watch = ServerWatch(version.id, pauses_s=pauses_s)
        self._server_at_work: CompletionServer | None = None
        self._in_flight = 0
        self._answered_at = -math.inf

    async def start(self) -> None:
        """Look for the server in the background from now on, and return at once."""
        if self._server_at_work is None:
            # One connection more than questions, so that looking is never in their way.
            connections = self._queue_limit + 1
            self._server_at_work = CompletionServer(self._remote, key=self._key, connections=connections)
            self._watch.start(self._server, self._try_out)

    async def stop(self) -> None:
        await self._watch.stop()
        if self._server_at_work is not None:
            await self._server.close()
            self._server_at_work = None

    @property
    def status(self) -> ModelStatus:
        """`load_s` is how long the first answer took; `restarts` counts the server's returns."""
        watch = self._watch
        return ModelStatus(
            watch.state,
            self.version_id,
            self._remote.model,
            restarts=max(watch.times_up - 1, 0),
            queue_depth=self._in_flight,
            circuit_open=self.circuit_open,
            loaded_once=watch.times_up > 0,
            load_s=watch.load_s,
            error=watch.error or None,
        )

    async def inject(self, fault: str | None) -> None:
        """Always refused: faults are for workers of this machine."""
        raise Forbidden("drills", f"{self.version_id} runs on another server: no {fault or 'fault'} there")

    async def explain(
        self, situation: Situation, advisory: Advisory, *, legacy: Decision | None = None
    ) -> Reasoning:
        """One question after the other."""
        if advisory.decision is None:
            return unexplained(advisory, "there is no decision to explain")
        lines, how = self._lines(situation, legacy), self.version.reasoning
        effects: list[Effect] = []
        generated = None
        try:
            async with asyncio.timeout(self._explain_deadline_s):
                if how != "attributed":
                    with self._room():
                        generated = await self._generated(lines, advisory.decision)
                if how != "generated" or not generated:  # never an empty reason
                    for index in range(min(len(lines), _FIELDS)):
                        with self._room():
                            effects.append(await self._effect(lines, index, advisory))
        except TimeoutError:
            pass  # what was found so far
        except Failure as failure:
            if not effects and not generated:
                return unexplained(advisory, f"the model's outcome was {failure.outcome}")
        return worded(advisory, effects, generated=generated, lines=lines)

    @property
    def _state(self) -> ModelState:
        return self._watch.state

    @property
    def _depth(self) -> int:
        return self._in_flight

    async def _settle(self, timeout_s: float) -> None:
        await self._watch.settle(timeout_s)

    @contextlib.contextmanager
    def _room(self, priority: Priority = Priority.REASONING) -> Iterator[None]:
        """A place among the questions on their way. Raises `Failure`."""
        refusal = self._refusal(priority)
        if refusal is not None:
            raise Failure(refusal, "not asked", started=False)
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def _decide(self, lines: tuple[Line, ...], priority: Priority, deadline_s: float) -> Answer:
        try:
            with self._room(priority):
                answer = await self._scored(lines, deadline_s)
        except Failure as failure:
            self._report(False if failure.blame else None, str(failure))
            if isinstance(failure, Unreachable):
                self._watch.doubt(failure)
            return Answer(failure.outcome, started=failure.started)
        except asyncio.CancelledError:
            self._breaker.pass_over()
            raise
        self._answered_at = time.monotonic()
        self._report(True, answer.outcome)
        return answer

    async def _scored(self, lines: tuple[Line, ...], deadline_s: float) -> Answer:
        """Raises `Failure`, also where the time is over."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(deadline_s):
                return await self._score(lines)
        except TimeoutError:
            # Under a flood a server still answers others; one that answers nobody hangs.
            hangs = self._answered_at < began and deadline_s >= _FAIR_TRIAL_S
            raise Failure(Outcome.TIMEOUT, f"no answer within {deadline_s:g} s", blame=hangs) from None

    async def _score(self, lines: Sequence[Line]) -> Answer:
        """Decide: one question. A bound label, without shares, may always be relied upon: see `_checked`."""
        if not self._remote.logprobs:
            said = await self._server.one_label(self._text(lines))
            return Answer(
                Outcome.OK, True, prompt_tokens=said.prompt_tokens, decision=read_one_label(said.text)
            )
        said = await self._server.first_token(self._text(lines))
        shares, coverage = read_labels(said.listed, calibration=self.version.calibration)
        outcome = self.version.limits.judge(shares, coverage)
        return Answer(outcome, True, shares, coverage, said.prompt_tokens)

    async def _generated(self, lines: Sequence[Line], decision: Decision) -> str:
        """The model's own words for a decision: one line, bounded, possibly empty."""
        prompt = f"{self._text(lines)} {decision}{REASON_CUE}"
        words = await self._server.words(prompt, max_tokens=self.version.decoding.max_tokens)
        return visible(words.strip().partition("\n")[0]).strip()

    async def _effect(self, lines: Sequence[Line], index: int, advisory: Advisory) -> Effect:
        """One field left out. Where there are no shares an effect is 1 (it turns the decision) or 0."""
        assert advisory.decision is not None
        field, found = lines[index].field, await self._score([*lines[:index], *lines[index + 1 :]])
        shares = found.probabilities
        if shares is None or advisory.confidence is None:
            without = found.decision or advisory.decision
            return Effect(field, float(without is not advisory.decision), without, None)
        without = shares.most_probable
        return Effect(field, advisory.confidence - shares.of(advisory.decision), without, shares.of(without))

    async def _try_out(self) -> None:
        """Whether the server answers in the form that is needed, here of a prompt without a situation."""
        if self._remote.logprobs:
            if not (await self._server.first_token(self._text(()))).listed:
                said = "it tells no log-probabilities: set `logprobs: false`"
                raise Failure(Outcome.MALFORMED, said, blame=True)
        else:
            await self._server.one_label(self._text(()))

    def _text(self, lines: Sequence[Line]) -> str:
        return self._prefix + harmless(situation_text(lines)) + self._suffix

    @property
    def _server(self) -> CompletionServer:
        assert self._server_at_work is not None
        return self._server_at_work


def _checked(version: ModelVersion) -> Remote:
    """The server of a version that a server can answer. Raises `PolicyError` naming what it cannot."""
    remote, limits = version.model.remote, version.limits
    wrong = {
        "model.remote": "is not declared" if remote is None else "",
        "adapter": "belongs to the server: start it with the adapter" if version.adapter else "",
        "head": "reads hidden states, which a server does not give" if version.head else "",
        "decoding.order": "must be decision_first" if version.decoding.order != "decision_first" else "",
    }
    if remote is not None and not remote.logprobs and limits.margin_at_least + limits.noise > 0:
        wrong["limits.margin_at_least"] = "must be 0, and noise too: without logprobs no margin is known"
    if remote is not None and not remote.logprobs and limits.confidence_at_least > 0:
        wrong["limits.confidence_at_least"] = "must be 0: without logprobs no confidence is known"
    for key, what in wrong.items():
        if what:
            raise PolicyError(version.origin, None, key, what)
    assert remote is not None
    try:
        httpx.URL(remote.url)
    except httpx.InvalidURL as error:
        raise PolicyError(version.origin, None, "model.remote.url", f"is no address: {error}") from error
    return remote


def _key(remote: Remote, environ: Mapping[str, str]) -> str | None:
    if remote.key_env is None:
        return None
    key = environ.get(remote.key_env, "").strip()
    if not (key and key.isascii() and key.isprintable()):
        raise SettingsError(remote.key_env, f"must hold the key of the server that serves {remote.model}")
    return key
