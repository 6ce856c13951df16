"""How fast does a version run here in other ways, and does it still decide the same?

A way to run is asked in turn with the declared one, situation by situation, so that a busy machine slows
both: speed is the median of their ratios. What they decide is compared with the declared file's own
weights, computed in half precision with the adapter beside them: what no layout has changed.
"""

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from msgspec import structs

from app.engines.model.cores import leave_the_first_core, thread_count
from app.engines.model.layouts import copy_name, note_of, prepare
from app.engines.model.memory import estimate, memory_limit
from app.engines.model.merge import Shares, loaded, shares
from app.engines.model.prompt import Line, Prompt
from app.engines.model.runtime import ModelError
from app.engines.model.scoring import Oversize, Scorer
from app.engines.model.trials import (
    FASTER,
    Findings,
    Trial,
    best_layout,
    changes,
    described,
    in_layout,
    is_better,
    others,
)
from app.engines.model.tuning import Tuning
from app.engines.model.version import Decoding, Layout, ModelVersion
from app.engines.model.weights import Weights

_FEW = 12  # situations that settings are compared on
_LEAST = 8  # fewer say nothing
_REFERENCE, _SETTINGS, _LAYOUTS = 0.2, 0.4, 0.9  # shares of the budget at which each part ends


@dataclass(frozen=True, slots=True)
class Question:
    """What is tuned, with what is asked of it; `tolerance` is a share of decisions, 0..1."""

    version: ModelVersion
    weights: Weights
    prompt: Prompt
    situations: Sequence[tuple[Line, ...]]
    cache_dir: Path
    tolerance: float
    budget_s: float


@contextmanager
def as_in_the_worker() -> Iterator[None]:
    """On the cores that the worker would have, for as long as it takes."""
    cores = os.sched_getaffinity(0)
    leave_the_first_core()
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


class Bench:
    """Measures one question within its budget: each part of it ends in time, with less where it must.

    To be run once, on one thread.
    """

    def __init__(self, question: Question) -> None:
        self._q = question
        self._made: set[Path] = set()
        self._began = time.monotonic()
        self._asked: list[tuple[Line, ...]] = []
        self._original: Shares = np.empty((0, 3))

    def run(self) -> Findings:
        """Settings first, then layouts under the best of them. Raises `ModelError`, `OSError`."""
        version, best = self._q.version, None
        how = structs.replace(version.decoding, threads=thread_count(version.decoding.threads))
        try:
            self._original = self._reference()
            with self._loaded(version, how) as declared:
                settings, tuned = self._settings(declared, how)
                layouts = list(self._layouts(declared, self._how(tuned)))
            best = best_layout(layouts, tolerance=self._q.tolerance)
        finally:
            self._clear(best)
        return Findings(
            version=version.id,
            cores=thread_count(None),
            settings=settings,
            layouts=layouts,
            tuning=_tuning(tuned),
            layout=best,
        )

    def _reference(self) -> Shares:
        """What the original decides: in half precision where the memory is there, else as the file is.

        What it was asked is what every other way is asked.
        """
        layout: Layout | None = "f16" if self._fits("f16") else None
        original = in_layout(self._q.version, layout, merge=False)
        found: list[list[float]] = []
        with self._loaded(original, original.decoding) as scorer:
            for lines in self._q.situations:
                with suppress(Oversize):  # no layout answers that
                    found.append(shares(scorer.score(lines)))
                    self._asked.append(lines)
                if self._is_over(_REFERENCE, len(found)):
                    break
        if not found:
            raise ModelError(f"{original.id} finds every situation too long: see limits.max_situation_tokens")
        return np.array(found)

    def _settings(self, declared: Scorer, how: Decoding) -> tuple[list[Trial], Trial]:
        """One change at a time, each tried on the best so far; what was tried, and the best of it."""
        version = self._q.version
        tried = [self._race(declared, declared, version, how, until=_SETTINGS, most=_FEW)]
        best, allowed = tried[0], max(self._q.tolerance, tried[0].differ)
        for change in changes(version.decoding):
            other = structs.replace(self._how(best), **change)
            if other == self._how(best) or self._share() >= _SETTINGS:
                continue
            with self._loaded(version, other) as scorer:
                tried.append(self._race(declared, scorer, version, other, until=_SETTINGS, most=_FEW))
            if is_better(tried[-1], best, factor=FASTER, allowed=allowed):
                best = tried[-1]
        return tried, best

    def _layouts(self, declared: Scorer, how: Decoding) -> Iterator[Trial]:
        """The declared layout first, then every other one, each with its share of the time that is left.

        A head was learned on the hidden states of one layout, so a version with a head stays in it.
        """
        version = self._q.version
        ways = [version] if version.head else [version, *others(version)]
        for number, way in enumerate(ways, 1):
            if self._share() >= _LAYOUTS and way is not version:
                return
            if way is not version and not self._fits(way.model.requantise):
                yield described(way, how, error="needs more than half of this machine's memory")
                continue
            until = _SETTINGS + (_LAYOUTS - _SETTINGS) * number / len(ways)
            try:
                with self._loaded(way, how) as scorer:
                    yield self._race(declared, scorer, way, how, until=until, most=len(self._asked))
            except ModelError as error:
                yield described(way, how, error=str(error))

    def _race(
        self,
        declared: Scorer,
        scorer: Scorer,
        version: ModelVersion,
        how: Decoding,
        *,
        until: float,
        most: int,
    ) -> Trial:
        ratios: list[float] = []
        seconds: list[float] = []
        found: list[list[float]] = []
        scorer.score(self._asked[0])  # the first finds cold caches
        for lines in self._asked[:most]:
            _, before = _timed(declared, lines)
            answer, took = _timed(scorer, lines)
            ratios.append(before / took)
            seconds.append(took)
            found.append(answer)
            if self._is_over(until, len(found)):
                break
        mine, original = np.array(found), self._original[: len(found)]
        return structs.replace(
            described(version, how),
            situations=len(found),
            speedup=statistics.median(ratios),
            decisions_per_s=1 / statistics.median(seconds),
            differ=float(np.mean(mine.argmax(1) != original.argmax(1))),
            moved=float(np.max(np.abs(mine - original))),
        )

    @contextmanager
    def _loaded(self, version: ModelVersion, how: Decoding) -> Iterator[Scorer]:
        copy = self._q.cache_dir / copy_name(version, self._q.weights)
        if version.model.requantise is not None and not copy.exists():
            self._made.add(copy)
        threads = thread_count(how.threads)
        files = prepare(
            version, self._q.weights, prompt=self._q.prompt, cache_dir=self._q.cache_dir, threads=threads
        )
        with loaded(
            files.model, version, self._q.prompt, adapter=files.adapter, decoding=how, threads=threads
        ) as scorer:
            yield scorer

    def _clear(self, best: Trial | None) -> None:
        """Delete the copies that were made for the measurement alone."""
        version = self._q.version
        kept = [version] if best is None else [version, in_layout(version, best.layout, merge=best.merged)]
        for copy in self._made - {self._q.cache_dir / copy_name(each, self._q.weights) for each in kept}:
            copy.unlink(missing_ok=True)
            note_of(copy).unlink(missing_ok=True)

    def _how(self, trial: Trial) -> Decoding:
        return structs.replace(
            self._q.version.decoding,
            threads=trial.threads,
            ubatch=trial.ubatch,
            flash_attention=trial.flash_attention,
        )

    def _fits(self, layout: Layout | None) -> bool:
        """Whether it can be loaded beside the declared one."""
        version, source = self._q.version, self._q.weights.source
        both = (version, in_layout(version, layout, merge=False))
        return sum(estimate(each, source) for each in both) <= memory_limit()

    def _share(self) -> float:
        return (time.monotonic() - self._began) / self._q.budget_s

    def _is_over(self, until: float, asked: int) -> bool:
        return self._share() >= until and asked >= _LEAST


def _timed(scorer: Scorer, lines: Sequence[Line]) -> tuple[list[float], float]:
    began = time.perf_counter()
    scores = scorer.score(lines)
    return shares(scores), time.perf_counter() - began


def _tuning(best: Trial) -> Tuning:
    return Tuning(
        threads=best.threads,
        ubatch=best.ubatch,
        flash_attention=best.flash_attention,
        decisions_per_s=best.decisions_per_s,
        speedup=best.speedup,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
