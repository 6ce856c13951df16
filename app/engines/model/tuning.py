"""In which ways can a version run, which of them is best on this machine, and is that remembered?

What is kept here changes speed and the last bits of a logit, never a layout: another layout is another
version. It belongs to the machine, so it lies in the cache directory and not in the version's file.
"""

import hashlib
import json
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import Struct, structs

from app.engines.model.cores import thread_count
from app.engines.model.version import Decoding, Layout, ModelVersion
from app.engines.model.weights import write

FASTER = 1.05  # less may be noise: a way raced against itself comes out at 0.98 to 1.02
FASTER_LAYOUT = 1.10  # a new version is worth that much
ENOUGH = 30  # situations that a layout is judged on
_UBATCHES = (128, 256, 512)
_TUNED = "tuned.json"
_CPU_INFO = Path("/proc/cpuinfo")


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

    def settings(self, decoding: Decoding) -> Decoding:
        """The decoding settings with those of this way."""
        return structs.replace(
            decoding, threads=self.threads, ubatch=self.ubatch, flash_attention=self.flash_attention
        )


def tuned(version: ModelVersion, *, cache_dir: Path) -> Decoding:
    """The version's decoding settings with what this machine was tuned to, if it was."""
    tuning = stored_tuning(version, cache_dir=cache_dir)
    return tuning.settings(version.decoding) if tuning else version.decoding


def stored_tuning(version: ModelVersion, *, cache_dir: Path, cores: int | None = None) -> Trial | None:
    """What was kept for so many cores of this machine, or for this process's; None where it cannot be read."""
    kept = _stored(cache_dir).get(_key(version, cores or thread_count(None)))
    try:
        return msgspec.convert(kept, Trial | None)
    except msgspec.ValidationError:
        return None


def store_tuning(version: ModelVersion, best: Trial, *, cache_dir: Path) -> None:
    """Keep it for every later load in a process with as many cores as this one. Raises `OSError`."""
    kept = {**_stored(cache_dir), _key(version, thread_count(None)): structs.asdict(best)}
    write(cache_dir / _TUNED, json.dumps(kept, indent=1))


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


def is_better(trial: Trial, best: Trial, *, factor: float, allowed: float) -> bool:
    """Faster by `factor`, with at most `allowed` of the decisions unlike the original's."""
    return trial.differ <= allowed and trial.speedup > best.speedup * factor


def best_layout(layouts: Sequence[Trial], *, tolerance: float) -> Trial | None:
    """The fastest that is enough better than the first, the declared one, and was asked enough to say so."""
    declared, *rest = layouts
    asked = [each for each in rest if each.situations >= ENOUGH]
    better = [each for each in asked if is_better(each, declared, factor=FASTER_LAYOUT, allowed=tolerance)]
    return max(better, key=lambda each: each.speedup, default=None)


def _key(version: ModelVersion, cores: int) -> str:
    """What a tuning holds for: versions that can share a loaded model, on one kind of machine.

    The cores are those that a process may use: the worker, which leaves one to the web process, is
    tuned apart from a process that has them all.
    """
    document = msgspec.json.encode(version.runtime_key)
    return f"{hashlib.sha256(document).hexdigest()[:16]} {cpu_model()} x{cores}"


def cpu_model() -> str:
    """The processor's name as the kernel tells it, else its architecture."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _stored(cache_dir: Path) -> dict[str, Any]:
    try:
        kept = json.loads((cache_dir / _TUNED).read_bytes())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
