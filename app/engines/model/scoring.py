"""What does a version decide, how sure is it, and did it understand the question?"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.advisory import Outcome, Probabilities
from app.domain.decision import Decision
from app.engines.model.head import Head
from app.engines.model.prompt import DECISION_CUE, REASON_CUE, Line, Prompt, situation_text, visible
from app.engines.model.runtime import Abort, Hidden, ModelError, Runtime, never
from app.engines.model.version import ModelVersion
from app.engines.model.wire import Answer

# Severe first: where two labels tie, argmax takes the safe one.
LABELS = (Decision.DENY, Decision.REQUIRE_ATTESTATION, Decision.ALLOW)
_SAID = 256  # reasons that were given before the decision and are kept until somebody asks for them


Asked = tuple[int, Sequence[Line], list[int]]  # of a group: its place, and what is asked in tokens


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


def read_labels(
    logits: NDArray[np.floating[Any]], labels: Sequence[int], *, prompt_tokens: int, temperature: float = 1.0
) -> Scores:
    """Softmax over the labels' first tokens, in the order of `LABELS`, and their share of the whole.

    `temperature` divides the labels' logits (Guo et al. 2017, eq. 9); the share is not calibrated.
    """
    highest = logits.max()
    whole = float(np.exp(logits - highest).sum())
    chosen = logits[list(labels)].astype(np.float64)
    odds = np.exp((chosen - chosen.max()) / temperature)
    deny, attest, allow = (float(part) for part in odds / odds.sum())
    coverage = float(np.exp(chosen - highest).sum()) / whole
    return Scores(Probabilities(allow, attest, deny), coverage, prompt_tokens)


class Scorer:
    """A version that answers situations from one thread; several may share a runtime."""

    def __init__(
        self, runtime: Runtime, version: ModelVersion, prompt: Prompt, head: Head | None = None
    ) -> None:
        """Check the version's prompt against the model. Nothing is decoded yet: see `prepare`.

        Raises `ModelError`.
        """
        self.version = version
        self.is_ready = False
        self._runtime = runtime
        self._head = head
        # A head reads the labels as they are and carries a temperature of its own.
        self._temperature = version.calibration.temperature if version.calibration and not head else 1.0
        self._said: dict[tuple[Line, ...], str] = {}
        self._suffix = runtime.template_tokens(prompt.suffix)
        self._reasons_first = version.decoding.order == "reason_first"
        _check_order(version, prompt)
        self._cue = runtime.template_tokens(DECISION_CUE) if self._reasons_first else []
        self._labels = self._first_tokens(DECISION_CUE if self._reasons_first else prompt.suffix)
        self._prefix: list[int] = []
        for piece in prompt.pieces:
            tokenise = runtime.template_tokens if piece.ours else runtime.caller_tokens
            self._prefix += tokenise(piece.text)
        self._room = runtime.n_ctx - len(self._prefix)
        needed = version.limits.max_situation_tokens + len(self._suffix) + _reserve(version)
        if needed > self._room:
            raise ModelError(
                f"n_ctx {runtime.n_ctx} is too small: {version.id} needs {len(self._prefix) + needed}"
            )

    def prepare(self, *, abort: Abort = never) -> bool:
        """Decode the next ubatch of the prompt's prefix; True when that was the last and all can be asked.

        Raises `Aborted`, `ModelError`.
        """
        self.is_ready = self._runtime.grow_prefix(self._prefix, slot=self.version.id, abort=abort)
        return self.is_ready

    def drop(self) -> None:
        """Forget the prefix. The scorer must not be asked again."""
        self._runtime.drop_prefix(self.version.id)

    def tokens(self, lines: Sequence[Line]) -> list[int]:
        """What is decoded after the prefix. Raises `Oversize`, before anything is decoded."""
        situation = self._runtime.caller_tokens(situation_text(lines))
        if len(situation) > self.version.limits.max_situation_tokens:
            raise Oversize
        return situation + self._suffix

    def score(self, lines: Sequence[Line], *, abort: Abort = never) -> Scores:
        """Decide: one decode, alone, in a fixed layout; the same lines give the same bits.

        Where the version reasons first, one line is generated before it.
        Raises `Oversize`, `Aborted`, `ModelError`.
        """
        tokens = self.tokens(lines)
        with self._decided(lines, tokens, abort, self._seen_by_head()):
            return self._read(-1, lines, len(tokens))

    def hidden(self, lines: Sequence[Line], *, abort: Abort = never) -> Hidden:
        """The model's hidden state (width,) where it decides, decoded as `score` does.

        Raises `Oversize`, `Aborted`, `ModelError`.
        """
        with self._decided(lines, self.tokens(lines), abort, self._runtime.with_hidden()):
            return self._runtime.hidden(-1)

    def score_many(self, many: Sequence[Sequence[Line]], *, abort: Abort = never) -> list[Scores | None]:
        """Score as observations of shadow are: together, `decoding.shadow_batch` at a time.

        None stands for what is oversize. Raises `Aborted`, `ModelError`.
        """
        found: list[Scores | None] = [None] * len(many)
        fitting: list[Asked] = []
        for index, lines in enumerate(many):
            with suppress(Oversize):
                if self._reasons_first:  # reasons are generated one by one
                    found[index] = self.score(lines, abort=abort)
                else:
                    fitting.append((index, lines, self.tokens(lines)))
        for group in self._groups(fitting):
            for (index, _, _), scores in zip(group, self._together(group, abort), strict=True):
                found[index] = scores
        return found

    def answer(self, scores: Scores | None) -> Answer:
        """What was scored, judged; None stands for what is oversize."""
        if scores is None:
            return Answer(Outcome.OVERSIZE, started=False)
        if not scores.is_finite:
            return Answer(Outcome.MALFORMED, started=True)
        outcome = self.version.limits.judge(scores.probabilities, scores.coverage)
        return Answer(outcome, True, scores.probabilities, scores.coverage, scores.prompt_tokens)

    def generate(self, lines: Sequence[Line], decision: Decision, *, abort: Abort = never) -> str:
        """The model's own words for a decision: greedy, one line, bounded, possibly empty.

        Where the version reasons first, they are those that led to the decision.
        Raises `Oversize`, `Aborted`, `ModelError`.
        """
        said = self._said.pop(tuple(lines), None)
        if said is not None:
            return said
        opening = [] if self._reasons_first else self._runtime.template_tokens(f" {decision}{REASON_CUE}")
        with self._forked():
            return self._line([*self.tokens(lines), *opening], abort)[0]

    @contextmanager
    def _decided(
        self, lines: Sequence[Line], tokens: Sequence[int], abort: Abort, how: AbstractContextManager[None]
    ) -> Iterator[None]:
        """The last row that was decoded is the one where the version decides."""
        with self._forked():
            if self._reasons_first:
                said, rest = self._line(tokens, abort)
                self._keep(tuple(lines), said)
                tokens = [*rest, *self._cue]
            with how:
                self._runtime.extend(tokens, abort=abort)
                yield

    def _keep(self, lines: tuple[Line, ...], said: str) -> None:
        if len(self._said) >= _SAID:
            self._said.pop(next(iter(self._said)))
        self._said[lines] = said

    @contextmanager
    def _forked(self) -> Iterator[None]:
        self._runtime.fork(self.version.id)
        try:
            yield
        finally:
            self._runtime.forget()

    def _read(self, row: int, lines: Sequence[Line], prompt_tokens: int) -> Scores:
        logits = self._runtime.logits(row)
        scores = read_labels(logits, self._labels, prompt_tokens=prompt_tokens, temperature=self._temperature)
        if self._head is None:
            return scores
        given = self._head.read(lines, self._runtime.hidden(row), scores.probabilities)
        return replace(scores, probabilities=given)

    def _seen_by_head(self) -> AbstractContextManager[None]:
        return self._runtime.with_hidden() if self._head else nullcontext()

    def _together(self, group: Sequence[Asked], abort: Abort) -> list[Scores]:
        def read(nth: int, row: int) -> Scores:
            _, lines, tokens = group[nth]
            return self._read(row, lines, len(tokens))

        prompts = [tokens for _, _, tokens in group]
        try:
            with self._seen_by_head():
                return self._runtime.read_together(prompts, read, slot=self.version.id, abort=abort)
        finally:
            self._runtime.forget()

    def _groups(self, asked: Sequence[Asked]) -> Iterator[list[Asked]]:
        """As many at a time as the version says and the context has room for."""
        group: list[Asked] = []
        for one in asked:
            full = sum(len(tokens) for _, _, tokens in (*group, one)) > self._room
            if group and (full or len(group) == self.version.decoding.shadow_batch):
                yield group
                group = []
            group.append(one)
        if group:
            yield group

    def _line(self, tokens: Sequence[int], abort: Abort) -> tuple[str, list[int]]:
        """One line, generated greedily, and those of its tokens that are not decoded yet."""
        words, rest = b"", list(tokens)
        for _ in range(self.version.decoding.max_tokens):
            token = int(np.argmax(self._runtime.extend(rest, abort=abort)))
            if self._runtime.ends(token) or self._runtime.is_control(token):
                rest = []
                break
            piece, rest = self._runtime.piece(token), [token]
            words += piece
            if b"\n" in words.lstrip():
                rest = self._runtime.caller_tokens(piece.partition(b"\n")[0].decode("utf-8", "replace"))
                break
        first_line = words.decode("utf-8", "replace").strip().partition("\n")[0]
        return visible(first_line).strip(), rest

    def _first_tokens(self, before: str) -> list[int]:
        """The token that begins each label where it is read, which must tell the labels apart."""
        begin = self._runtime.template_tokens(before)
        firsts = []
        for label in LABELS:
            whole = self._runtime.template_tokens(f"{before} {label}")
            if whole[: len(begin)] != begin or len(whole) == len(begin):
                raise ModelError(f"the label {label} merges with the end of the prompt")
            firsts.append(whole[len(begin)])
        if len(set(firsts)) != len(LABELS):
            raise ModelError("two labels begin with the same token in this vocabulary")
        return firsts


def _reserve(version: ModelVersion) -> int:
    """Tokens to keep free for what the version generates, and for the cues around it."""
    generates = version.reasoning != "attributed" or version.decoding.order == "reason_first"
    return version.decoding.max_tokens + 32 if generates else 0


def _check_order(version: ModelVersion, prompt: Prompt) -> None:
    ends, first = prompt.suffix.endswith(REASON_CUE.strip()), version.decoding.order == "reason_first"
    if ends != first:
        wanted = "must end with" if first else "must not end with"
        raise ModelError(
            f"{version.prompt} {wanted} {REASON_CUE.strip()!r} where {version.id} says "
            f"decoding.order: {version.decoding.order}; mend either file"
        )
