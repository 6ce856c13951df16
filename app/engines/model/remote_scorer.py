"""What does a version on another server decide, and why?"""

from collections.abc import Sequence

import httpx

from app.domain.advisory import Advisory, Outcome
from app.domain.decision import Decision
from app.engines.model.completions import (
    CompletionServer,
    Failure,
    harmless,
    read_labels,
    read_one_label,
)
from app.engines.model.prompt import REASON_CUE, Line, Prompt, situation_text, visible
from app.engines.model.reasons import Effect
from app.engines.model.version import ModelVersion, Remote
from app.engines.model.wire import Answer
from app.errors import PolicyError


class RemoteScorer:
    """A version's prompts, and the server that answers them. Every method raises `completions.Failure`."""

    def __init__(
        self, version: ModelVersion, remote: Remote, prompt: Prompt, server: CompletionServer
    ) -> None:
        self._version, self._remote, self._server = version, remote, server
        self._prefix = "".join(piece.text if piece.ours else harmless(piece.text) for piece in prompt.pieces)
        self._suffix = prompt.suffix

    async def score(self, lines: Sequence[Line]) -> Answer:
        """Decide: one question. A bound label, without shares, may always be relied upon: see `checked`."""
        if not self._remote.logprobs:
            said = await self._server.one_label(self._text(lines))
            return Answer(
                Outcome.OK, True, prompt_tokens=said.prompt_tokens, decision=read_one_label(said.text)
            )
        said = await self._server.first_token(self._text(lines))
        shares, coverage = read_labels(said.listed, calibration=self._version.calibration)
        outcome = self._version.limits.judge(shares, coverage)
        return Answer(outcome, True, shares, coverage, said.prompt_tokens)

    async def generate(self, lines: Sequence[Line], decision: Decision) -> str:
        """The model's own words for a decision: one line, bounded, possibly empty."""
        prompt = f"{self._text(lines)} {decision}{REASON_CUE}"
        words = await self._server.words(prompt, max_tokens=self._version.decoding.max_tokens)
        return visible(words.strip().partition("\n")[0]).strip()

    async def effect(self, lines: Sequence[Line], index: int, advisory: Advisory) -> Effect:
        """One field left out. Where there are no shares an effect is 1 (it turns the decision) or 0."""
        assert advisory.decision is not None
        field, found = lines[index].field, await self.score([*lines[:index], *lines[index + 1 :]])
        shares = found.probabilities
        if shares is None or advisory.confidence is None:
            without = found.decision or advisory.decision
            return Effect(field, float(without is not advisory.decision), without, None)
        without = shares.most_probable
        return Effect(field, advisory.confidence - shares.of(advisory.decision), without, shares.of(without))

    async def try_out(self) -> None:
        """Whether the server answers in the form that is needed, here of a prompt without a situation."""
        if self._remote.logprobs:
            if not (await self._server.first_token(self._text(()))).listed:
                said = "it tells no log-probabilities: set `logprobs: false`"
                raise Failure(Outcome.MALFORMED, said, blame=True)
        else:
            await self._server.one_label(self._text(()))

    def _text(self, lines: Sequence[Line]) -> str:
        return self._prefix + harmless(situation_text(lines)) + self._suffix


def checked(version: ModelVersion) -> Remote:
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
