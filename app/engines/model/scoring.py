"""What does the model decide, how sure is it, and did it understand the question?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.domain.advisory import Outcome, Probabilities
from app.domain.decision import Decision
from app.engines.model.fields import Line, visible
from app.engines.model.prompt import REASON_CUE, Prompt, situation_text
from app.engines.model.runtime import Abort, Logits, ModelError, Runtime, never
from app.engines.model.version import Limits, ModelVersion

# Severe first: where two labels tie, argmax takes the safe one.
LABELS = (Decision.DENY, Decision.REQUIRE_ATTESTATION, Decision.ALLOW)


class Oversize(Exception):
    """The situation has more tokens than the version's limit."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One reading of the labels. `coverage` is their share of the full softmax, 0..1."""

    probabilities: Probabilities
    coverage: float
    prompt_tokens: int

    @property
    def decision(self) -> Decision:
        return self.probabilities.most_probable

    @property
    def confidence(self) -> float:
        return self.probabilities.of(self.decision)

    @property
    def is_finite(self) -> bool:
        """False where the weights or the arithmetic are broken."""
        return math.isfinite(self.coverage) and math.isfinite(self.probabilities.deny)


def judge(scores: Scores, limits: Limits) -> Outcome:
    """Whether an answer may be relied upon."""
    if not scores.is_finite or scores.coverage < limits.coverage_at_least:
        return Outcome.MALFORMED
    if scores.probabilities.margin < limits.margin_at_least or scores.confidence < limits.confidence_at_least:
        return Outcome.UNSURE
    return Outcome.OK


def read_labels(logits: Logits, labels: Sequence[int], *, prompt_tokens: int) -> Scores:
    """Softmax over the labels' first tokens, in the order of `LABELS`, and their share of the whole."""
    weights = np.exp(logits - logits.max())
    share = weights[list(labels)]
    deny, attest, allow = (float(part) for part in share / share.sum())
    return Scores(Probabilities(allow, attest, deny), float(share.sum() / weights.sum()), prompt_tokens)


class Scorer:
    """A loaded version that answers situations, one at a time, from one thread."""

    def __init__(self, runtime: Runtime, version: ModelVersion, prompt: Prompt) -> None:
        """Decode the prompt's prefix and check that the labels can be told apart."""
        self.version = version
        self._runtime = runtime
        self._suffix = runtime.template_tokens(prompt.suffix)
        prefix = runtime.template_tokens(prompt.prefix)
        self._labels = self._first_tokens(prompt)
        reserve = 0 if version.reasoning == "attributed" else version.decoding.max_tokens + 32
        needed = len(prefix) + version.limits.max_situation_tokens + len(self._suffix) + reserve
        if needed > version.decoding.n_ctx:
            raise ModelError(f"n_ctx {version.decoding.n_ctx} is too small: this version needs {needed}")
        runtime.set_prefix(prefix)

    def close(self) -> None:
        self._runtime.close()

    @property
    def offloaded_layers(self) -> int:
        return self._runtime.offloaded_layers

    def tokens(self, lines: Sequence[Line]) -> list[int]:
        """What is decoded after the prefix. Raises `Oversize`, before anything is decoded."""
        situation = self._runtime.caller_tokens(situation_text(lines))
        if len(situation) > self.version.limits.max_situation_tokens:
            raise Oversize
        return situation + self._suffix

    def score(self, lines: Sequence[Line], *, abort: Abort = never) -> Scores:
        """Decide: one decode, alone, in a fixed layout; the same lines give the same bits.

        Raises `Oversize`, `Aborted`, `ModelError`.
        """
        tokens = self.tokens(lines)
        self._runtime.fork()
        try:
            logits = self._runtime.extend(tokens, abort=abort)
        finally:
            self._runtime.forget()
        return read_labels(logits, self._labels, prompt_tokens=len(tokens))

    def generate(self, lines: Sequence[Line], decision: Decision, *, abort: Abort = never) -> str:
        """The model's own words for a decision: greedy, one line, bounded, possibly empty.

        Raises `Oversize`, `Aborted`, `ModelError`.
        """
        opening = self._runtime.template_tokens(f" {decision}{REASON_CUE}")
        tokens, words = [*self.tokens(lines), *opening], b""
        self._runtime.fork()
        try:
            for _ in range(self.version.decoding.max_tokens):
                token = int(np.argmax(self._runtime.extend(tokens, abort=abort)))
                if self._runtime.ends(token):
                    break
                words, tokens = words + self._runtime.piece(token), [token]
                if b"\n" in words.lstrip():
                    break
        finally:
            self._runtime.forget()
        first_line = words.decode("utf-8", "replace").strip().partition("\n")[0]
        return visible(first_line).strip()

    def _first_tokens(self, prompt: Prompt) -> list[int]:
        """The token that begins each label where it is read, which must tell the labels apart."""
        firsts = []
        for label in LABELS:
            whole = self._runtime.template_tokens(f"{prompt.suffix} {label}")
            if whole[: len(self._suffix)] != self._suffix or len(whole) == len(self._suffix):
                raise ModelError(f"the label {label} merges with the end of the prompt")
            firsts.append(whole[len(self._suffix)])
        if len(set(firsts)) != len(LABELS):
            raise ModelError("two labels begin with the same token in this vocabulary")
        return firsts
