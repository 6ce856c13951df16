"""What does a version decide, how sure is it, did it understand the question, and why does it say so?"""

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from app.domain.advisory import Outcome, Probabilities
from app.domain.decision import Decision
from app.engines.model.cores import thread_count
from app.engines.model.prompt import REASON_CUE, Line, Prompt, load_prompt, situation_text, visible
from app.engines.model.reasons import Effect
from app.engines.model.runtime import Abort, Logits, ModelError, Runtime, never, requantise
from app.engines.model.version import Limits, ModelVersion, Reason
from app.engines.model.weights import Weights, find_weights, settle

# Severe first: where two labels tie, argmax takes the safe one.
LABELS = (Decision.DENY, Decision.REQUIRE_ATTESTATION, Decision.ALLOW)
_FIELDS = 16  # of a caller who sends hundreds, the first ones: those a prompt knows


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


@dataclass(slots=True)
class Reasoner:
    """The work on one explanation. It keeps what it has done, so it may be aborted and taken up again."""

    lines: Sequence[Line]
    decision: Decision
    confidence: float
    reasoning: Reason
    effects: list[Effect] = field(default_factory=list)
    generated: str | None = None

    @property
    def done(self) -> bool:
        return self._next_line is None and (self.generated is not None or self.reasoning == "attributed")

    @property
    def _next_line(self) -> int | None:
        index = len(self.effects)
        return index if self.reasoning != "generated" and index < min(len(self.lines), _FIELDS) else None

    def advance(self, scorer: Scorer, abort: Abort) -> None:
        """Leave out one more field, or generate. Raises what `Scorer` raises."""
        index = self._next_line
        if index is None:
            self.generated = scorer.generate(self.lines, self.decision, abort=abort)
            if not self.generated:  # never an empty reason: fall back to leaving fields out
                self.reasoning = "attributed"
            return
        rest = [line for position, line in enumerate(self.lines) if position != index]
        scores = scorer.score(rest, abort=abort)
        effect = self.confidence - scores.probabilities.of(self.decision)
        self.effects.append(Effect(self.lines[index].field, effect, scores.decision, scores.confidence))


def open_scorer(
    version: ModelVersion, *, policies_dir: Path, cache_dir: Path, model_path: Path | None = None
) -> tuple[Scorer, Weights]:
    """Find, verify, convert where the version says so, and load.

    Takes a second, the first time a few. Raises `PolicyError`, `SettingsError`, `ModelError`, `OSError`.
    """
    weights = find_weights(version, policies_dir=policies_dir, cache_dir=cache_dir, model_path=model_path)
    threads = thread_count(version.decoding.threads)
    model = weights.source
    if version.model.requantise is not None:
        model = _converted(
            weights, cache_dir / f"{weights.sha256[:16]}-{version.model.requantise}.gguf", threads
        )
    adapter = (weights.adapter, version.adapter.scale) if version.adapter and weights.adapter else None
    runtime = Runtime(model, adapter=adapter, decoding=version.decoding, threads=threads)
    return Scorer(runtime, version, load_prompt(policies_dir / version.prompt)), weights


def _converted(weights: Weights, copy: Path, threads: int) -> Path:
    """The copy in another layout, named by the source's hash and made once."""
    if copy.is_file():
        return copy
    handle, name = tempfile.mkstemp(dir=copy.parent, suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        requantise(weights.source, part, threads=threads)
        settle(part, copy)
    finally:
        part.unlink(missing_ok=True)
    return copy
