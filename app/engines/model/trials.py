"""In which ways can a version run, and which of them is worth it?"""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from msgspec import Struct, structs

from app.engines.model.cores import thread_count
from app.engines.model.tuning import Tuning
from app.engines.model.version import Decoding, Layout, ModelVersion

FASTER = 1.05  # less may be noise: a way raced against itself comes out at 0.98 to 1.02
FASTER_LAYOUT = 1.10  # a new version is worth that much
ENOUGH = 30  # situations that a layout is judged on
_UBATCHES = (128, 256, 512)


class Trial(Struct, frozen=True, kw_only=True):
    """One way to run a version. `speedup` is over the declared way; `differ` the share 0..1 of decisions that
    are not the original's, and `moved` the furthest that a probability is from its.
    """

    layout: Layout | None
    merged: bool
    threads: int
    ubatch: int
    flash_attention: bool
    situations: int = 0
    speedup: float = 0.0
    decisions_per_s: float = 0.0
    differ: float = 1.0
    moved: float = 1.0
    error: str | None = None

    @property
    def name(self) -> str:
        """The layout as part of a version's name: `q4_0-merged`."""
        return f"{self.layout or 'original'}{'-merged' if self.merged else ''}"


class Findings(Struct, frozen=True, kw_only=True):
    """`tuning` is worth keeping; `layout` is a faster layout within the tolerance, or None."""

    version: str
    cores: int
    settings: list[Trial]
    layouts: list[Trial]
    tuning: Tuning
    layout: Trial | None


def changes(how: Decoding) -> Iterator[dict[str, Any]]:
    """Settings to try, one at a time."""
    cores = thread_count(None)
    for threads in sorted({1, max(cores // 2, 1), cores}):
        yield {"threads": threads}
    yield {"flash_attention": not how.flash_attention}
    for ubatch in _UBATCHES:
        yield {"ubatch": ubatch}


def others(version: ModelVersion) -> Iterator[ModelVersion]:
    """The version in every other layout, its adapter part of the weights or beside them."""
    for merge in (True, False) if version.adapter else (False,):
        for layout in get_args(Layout):
            other = in_layout(version, layout, merge=merge)
            if (other.model, other.adapter) != (version.model, version.adapter):
                yield other


def in_layout(version: ModelVersion, layout: Layout | None, *, merge: bool) -> ModelVersion:
    """The version with other files and the same settings."""
    adapter = version.adapter and structs.replace(version.adapter, merge=merge)
    return structs.replace(version, model=structs.replace(version.model, requantise=layout), adapter=adapter)


def described(version: ModelVersion, how: Decoding, *, error: str | None = None) -> Trial:
    """A way to run that is not measured yet, or cannot be."""
    return Trial(
        layout=version.model.requantise,
        merged=version.adapter is not None and version.adapter.merge,
        threads=thread_count(how.threads),
        ubatch=how.ubatch,
        flash_attention=how.flash_attention,
        error=error,
    )


def is_better(trial: Trial, best: Trial, *, factor: float, allowed: float) -> bool:
    """Faster by `factor`, with at most `allowed` of the decisions unlike the original's."""
    return trial.differ <= allowed and trial.speedup > best.speedup * factor


def best_layout(layouts: Sequence[Trial], *, tolerance: float) -> Trial | None:
    """The fastest that is enough better than the first, the declared one, and was asked enough to say so."""
    declared, *rest = layouts
    asked = [each for each in rest if each.situations >= ENOUGH]
    better = [each for each in asked if is_better(each, declared, factor=FASTER_LAYOUT, allowed=tolerance)]
    return max(better, key=lambda each: each.speedup, default=None)
