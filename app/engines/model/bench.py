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
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from msgspec import Struct, structs

from app.engines.model.cores import leave_the_first_core, thread_count
from app.engines.model.layouts import prepare
from app.engines.model.memory import estimate, memory_limit
from app.engines.model.merge import Shares, loaded, shares
from app.engines.model.prompt import Line, Prompt
from app.engines.model.runtime import ModelError
from app.engines.model.scoring import Oversize, Scorer
from app.engines.model.tuning import FASTER, Trial, best_layout, changes, in_layout, is_better, others
from app.engines.model.version import Decoding, Layout, ModelVersion
from app.engines.model.weights import Weights

_FEW = 12  # situations that settings are compared on
_LEAST = 8  # fewer say nothing
_REFERENCE, _SETTINGS, _LAYOUTS = 0.2, 0.4, 0.9  # shares of the budget at which each part ends


class Findings(Struct, frozen=True, kw_only=True):
    """`tuning` is worth keeping; `layout` is a faster layout within the tolerance, or None."""

    version: str
    cores: int
    settings: list[Trial]
    layouts: list[Trial]
    tuning: Trial
    layout: Trial | None


@contextmanager
def as_in_the_worker() -> Iterator[None]:
    """On the cores that the worker would have, for as long as it takes."""
    cores = os.sched_getaffinity(0)
    leave_the_first_core()
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@dataclass(slots=True, kw_only=True)
class Bench:
    """Measures one version within its budget: each part of it ends in time, with less where it must.

    `tolerance` is a share of decisions, 0..1. To be run once, on one thread.
    """

    version: ModelVersion
    weights: Weights
    prompt: Prompt
    situations: Sequence[tuple[Line, ...]]
    cache_dir: Path
    tolerance: float
    budget_s: float
    _began: float = field(default_factory=time.monotonic, init=False)
    _copies: Path = field(default_factory=Path, init=False)
    _asked: list[tuple[Line, ...]] = field(default_factory=list, init=False)
    _original: Shares = field(default_factory=lambda: np.empty((0, 3)), init=False)

    def run(self) -> Findings:
        """Settings first, then layouts under the best of them. Raises `ModelError`, `OSError`."""
        how = self.version.decoding
        with TemporaryDirectory(dir=self.cache_dir) as copies:
            self._copies = Path(copies)
            self._original = self._reference()
            with self._loaded(self.version, how) as declared:
                settings, tuning = self._settings(declared)
                layouts = list(self._layouts(declared, tuning.settings(how)))
        return Findings(
            version=self.version.id,
            cores=thread_count(None),
            settings=settings,
            layouts=layouts,
            tuning=tuning,
            layout=best_layout(layouts, tolerance=self.tolerance),
        )

    def _reference(self) -> Shares:
        """What the original decides: in half precision where the memory is there, else as the file is.

        What it was asked is what every other way is asked.
        """
        layout: Layout | None = "f16" if self._fits("f16") else None
        original = in_layout(self.version, layout, merge=False)
        found: list[list[float]] = []
        with self._loaded(original, original.decoding) as scorer:
            for lines in self.situations:
                with suppress(Oversize):  # no layout answers that
                    found.append(shares(scorer.score(lines)))
                    self._asked.append(lines)
                if self._is_over(_REFERENCE, len(found)):
                    break
        if not found:
            raise ModelError(f"{original.id} finds every situation too long: see limits.max_situation_tokens")
        return np.array(found)

    def _settings(self, declared: Scorer) -> tuple[list[Trial], Trial]:
        """One change at a time, each tried on the best so far; what was tried, and the best of it."""
        version, how = self.version, self.version.decoding
        tried = [self._race(declared, declared, _described(version, how), until=_SETTINGS, most=_FEW)]
        best, allowed = tried[0], max(self.tolerance, tried[0].differ)
        for change in changes(how):
            other = structs.replace(best.settings(how), **change)
            if other == best.settings(how) or self._share() >= _SETTINGS:
                continue
            with self._loaded(version, other) as scorer:
                trial = _described(version, other)
                tried.append(self._race(declared, scorer, trial, until=_SETTINGS, most=_FEW))
            if is_better(tried[-1], best, factor=FASTER, allowed=allowed):
                best = tried[-1]
        return tried, best

    def _layouts(self, declared: Scorer, how: Decoding) -> Iterator[Trial]:
        """The declared layout first, then every other one, each with its share of the time that is left.

        A head was learned on the hidden states of one layout, so a version with a head stays in it.
        """
        ways = [self.version] if self.version.head else [self.version, *others(self.version)]
        for number, way in enumerate(ways, 1):
            trial = _described(way, how)
            if self._share() >= _LAYOUTS and way is not self.version:
                return
            if way is not self.version and not self._fits(way.model.requantise):
                yield structs.replace(trial, error="needs more than half of this machine's memory")
                continue
            until = _SETTINGS + (_LAYOUTS - _SETTINGS) * number / len(ways)
            try:
                with self._loaded(way, how) as scorer:
                    yield self._race(declared, scorer, trial, until=until, most=len(self._asked))
            except ModelError as error:
                yield structs.replace(trial, error=str(error))

    def _race(self, declared: Scorer, scorer: Scorer, trial: Trial, *, until: float, most: int) -> Trial:
        """The trial with what was measured of it."""
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
            trial,
            situations=len(found),
            speedup=statistics.median(ratios),
            decisions_per_s=1 / statistics.median(seconds),
            differ=float(np.mean(mine.argmax(1) != original.argmax(1))),
            moved=float(np.max(np.abs(mine - original))),
        )

    @contextmanager
    def _loaded(self, version: ModelVersion, how: Decoding) -> Iterator[Scorer]:
        """A version as it would be asked. The copies of other layouts last as long as the measurement."""
        place, threads = (
            self.cache_dir if version is self.version else self._copies,
            thread_count(how.threads),
        )
        files = prepare(version, self.weights, prompt=self.prompt, cache_dir=place, threads=threads)
        with loaded(
            files.model, version, self.prompt, adapter=files.adapter, decoding=how, threads=threads
        ) as scorer:
            yield scorer

    def _fits(self, layout: Layout | None) -> bool:
        """Whether it can be loaded beside the declared one."""
        both = (self.version, in_layout(self.version, layout, merge=False))
        return sum(estimate(each, self.weights.source) for each in both) <= memory_limit()

    def _share(self) -> float:
        return (time.monotonic() - self._began) / self.budget_s

    def _is_over(self, until: float, asked: int) -> bool:
        return self._share() >= until and asked >= _LEAST


def _described(version: ModelVersion, how: Decoding) -> Trial:
    """A way to run that is not measured yet."""
    return Trial(
        layout=version.model.requantise,
        merged=version.adapter is not None and version.adapter.merge,
        threads=thread_count(how.threads),
        ubatch=how.ubatch,
        flash_attention=how.flash_attention,
    )


def _timed(scorer: Scorer, lines: Sequence[Line]) -> tuple[list[float], float]:
    began = time.perf_counter()
    scores = scorer.score(lines)
    return shares(scores), time.perf_counter() - began
