"""How is a model asked that another server holds, and what comes back when that server fails?

Prompt, limits and outcomes are those of the local engine. What a server over the network cannot promise
is the same answer to the bit: that depends on what it computes beside it.
"""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import structlog

from app.domain.advisory import Advisory, Outcome, Reasoning
from app.domain.decision import Decision
from app.domain.situation import Situation
from app.engines.model.breaker import CircuitBreaker
from app.engines.model.completions import CompletionServer, Failure, Unreachable
from app.engines.model.link import ModelState
from app.engines.model.prompt import Line, write
from app.engines.model.reasons import Effect, unexplained
from app.engines.model.remote_scorer import Reading, RemoteScorer, checked, explained
from app.engines.model.remote_watch import PAUSES_S, ServerWatch
from app.engines.model.supervisor import ModelStatus
from app.engines.model.version import ModelVersion, Remote, prompt_of
from app.engines.model.wire import Priority
from app.errors import Forbidden, SettingsError
from app.observability import Event

log = structlog.get_logger(__name__)

# A text with more characters a token than this is no language: it is not even sent.
_CHARACTERS_A_TOKEN = 8
_FIELDS = 16  # of a caller who sends hundreds, the first ones
_FAIR_TRIAL_S = 0.25  # who had less time than this shows nothing about the server
# How full each priority may find the connections and still get one: binding work always finds room.
_SHARE = {Priority.BINDING: 1.0, Priority.ADVISORY: 0.75, Priority.SHADOW: 0.5, Priority.REASONING: 0.25}


class RemoteModel:
    """One version on another server, with the surface of `ModelSupervisor`; for one event loop.

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
        self.version, self._remote = version, checked(version)
        self._prompt = prompt_of(version, policies_dir=policies_dir)
        self._key = _key(self._remote, environ)
        self._connections, self._explain_deadline_s = connections, explain_deadline_s
        self._breaker = breaker or CircuitBreaker()
        self._watch = ServerWatch(version.id, pauses_s=pauses_s)
        self._server: CompletionServer | None = None
        self._in_flight = 0
        self._answered_at = -math.inf

    async def start(self) -> None:
        """Look for the server in the background from now on, and return at once."""
        if self._server is None:
            # One connection more than questions, so that looking is never in their way.
            self._server = CompletionServer(self._remote, key=self._key, connections=self._connections + 1)
            self._watch.start(self._server, self._scorer(self._server).try_out)

    async def stop(self) -> None:
        """Ask nothing any more; what is still asked is `unavailable`."""
        await self._watch.stop()
        if self._server is not None:
            await self._server.close()
            self._server = None

    async def wait_ready(self, timeout_s: float) -> bool:
        """True once the server answers; False when it cannot serve this version or the time is over."""
        try:
            await self._watch.settle(timeout_s)
        except TimeoutError:
            return False
        return self._watch.state is ModelState.READY

    @property
    def version_id(self) -> str:
        return self.version.id

    @property
    def shows_legacy(self) -> bool:
        """Whether the prompt holds the legacy answer: then agreement with it is not independent."""
        return self.version.show_legacy

    @property
    def is_ready(self) -> bool:
        """Whether a question asked now would be taken up."""
        return self._watch.state is ModelState.READY and not self.circuit_open

    @property
    def circuit_open(self) -> bool:
        return self._breaker.is_open(time.monotonic())

    @property
    def status(self) -> ModelStatus:
        """`load_s` is how long the first answer took; `restarts` counts the server's returns."""
        watch = self._watch
        return ModelStatus(
            state=watch.state,
            pid=None,
            version=self.version.id,
            model=self._remote.model,
            sha256=None,
            restarts=max(watch.times_up - 1, 0),
            queue_depth=self._in_flight,
            circuit_open=self.circuit_open,
            loaded_once=watch.times_up > 0,
            load_s=watch.load_s,
            offloaded_layers=None,
            fault=None,
            error=watch.error or None,
        )

    async def inject(self, fault: str | None) -> None:
        """Raises `Forbidden`: faults are for workers of this machine."""
        raise Forbidden("drills", f"{self.version.id} runs on another server: no {fault or 'fault'} there")

    async def advise(
        self,
        situation: Situation,
        *,
        priority: Priority,
        deadline_s: float,
        legacy: Decision | None = None,
    ) -> Advisory:
        """Ask the model. Whatever goes wrong is an outcome; only cancellation is raised.

        `legacy` reaches the prompt only where the version shows it.
        """
        began = time.monotonic()
        try:
            reading = await self._read(self._lines(situation, legacy), priority, deadline_s)
        except Failure as failure:
            latency_ms = (time.monotonic() - began) * 1000
            return Advisory(self.version.id, failure.outcome, latency_ms, started=failure.started)
        outcome, shares = reading.judged(self.version.limits), reading.probabilities
        answered = outcome is not Outcome.MALFORMED
        return Advisory(
            version=self.version.id,
            outcome=outcome,
            latency_ms=(time.monotonic() - began) * 1000,
            decision=reading.decision if answered else None,
            probabilities=shares if answered else None,
            confidence=shares.of(reading.decision) if answered and shares else None,
            coverage=reading.coverage,
            prompt_tokens=reading.prompt_tokens,
        )

    async def explain(
        self, situation: Situation, advisory: Advisory, *, legacy: Decision | None = None
    ) -> Reasoning:
        """Find the reasons for an advisory, one question after the other, after everything more urgent.

        Never empty; what cannot be found out is said in the text. Only cancellation is raised.
        """
        if advisory.decision is None:
            return unexplained(advisory, "there is no decision to explain")
        lines, how = self._lines(situation, legacy), self.version.reasoning
        effects: list[Effect] = []
        generated = None
        try:
            async with asyncio.timeout(self._explain_deadline_s):
                if how != "attributed":
                    with self._room(Priority.REASONING) as scorer:
                        generated = await scorer.generate(lines, advisory.decision)
                if how != "generated" or not generated:  # never an empty reason
                    for index in range(min(len(lines), _FIELDS)):
                        with self._room(Priority.REASONING) as scorer:
                            effects.append(await scorer.effect(lines, index, advisory))
        except TimeoutError:
            pass  # what was found so far
        except Failure as failure:
            if not effects and not generated:
                return unexplained(advisory, f"the model's outcome was {failure.outcome}")
        return explained(advisory, effects, generated=generated, lines=lines)

    def _scorer(self, server: CompletionServer) -> RemoteScorer:
        return RemoteScorer(self.version, self._remote, self._prompt, server)

    def _lines(self, situation: Situation, legacy: Decision | None) -> tuple[Line, ...]:
        return write(situation, legacy=legacy if self.version.show_legacy else None)

    @contextlib.contextmanager
    def _room(self, priority: Priority) -> Iterator[RemoteScorer]:
        """A place among the questions on their way. Raises `Failure`."""
        if self._watch.state is not ModelState.READY or self._server is None:
            raise Failure(Outcome.UNAVAILABLE, self._watch.error, started=False)
        if self._in_flight >= self._connections * _SHARE[priority]:
            raise Failure(Outcome.OVERLOADED, "too many questions are on their way", started=False)
        self._in_flight += 1
        try:
            yield self._scorer(self._server)
        finally:
            self._in_flight -= 1

    async def _read(self, lines: tuple[Line, ...], priority: Priority, deadline_s: float) -> Reading:
        most = self.version.limits.max_situation_tokens * _CHARACTERS_A_TOKEN
        with self._room(priority) as scorer:
            if sum(len(line.text) for line in lines) > most:
                raise Failure(Outcome.OVERSIZE, "too long", started=False)
            # Last, because whoever is admitted while the circuit is open is the one trial.
            if not self._breaker.admit(time.monotonic()):
                raise Failure(Outcome.UNAVAILABLE, "the circuit is open", started=False)
            try:
                reading = await _within(deadline_s, scorer.score(lines), heard_at=lambda: self._answered_at)
            except Failure as failure:
                self._note(failure)
                raise
            except asyncio.CancelledError:
                self._breaker.pass_over()
                raise
        self._answered_at = time.monotonic()
        self._note(None)
        return reading

    def _note(self, failure: Failure | None) -> None:
        """Tell the circuit breaker, which counts only what no caller can bring about."""
        had_tripped = self._breaker.has_tripped
        if failure is None:
            self._breaker.succeed()
        elif failure.blame:
            self._breaker.fail(time.monotonic())
        else:
            self._breaker.pass_over()
        if isinstance(failure, Unreachable):
            self._watch.doubt(failure)
        if self._breaker.has_tripped != had_tripped:
            event = Event.CIRCUIT_CLOSED if had_tripped else Event.CIRCUIT_OPENED
            log.warning(event, version=self.version.id, error=str(failure or ""))


async def _within(deadline_s: float, answer: Awaitable[Reading], *, heard_at: Callable[[], float]) -> Reading:
    """Raises `Failure`, also where the time is over."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(deadline_s):
            return await answer
    except TimeoutError:
        # Under a flood a server still answers others; one that answers nobody hangs.
        hangs = heard_at() < began and deadline_s >= _FAIR_TRIAL_S
        raise Failure(Outcome.TIMEOUT, f"no answer within {deadline_s:g} s", blame=hangs) from None


def _key(remote: Remote, environ: Mapping[str, str]) -> str | None:
    if remote.key_env is None:
        return None
    key = environ.get(remote.key_env, "").strip()
    if not (key and key.isascii() and key.isprintable()):
        raise SettingsError(remote.key_env, f"must hold the key of the server that serves {remote.model}")
    return key
