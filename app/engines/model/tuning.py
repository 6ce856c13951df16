"""How does a version run best on this machine, as far as that was measured?

What is kept here changes speed and the last bits of a logit, never a layout: another layout is another
version. It belongs to the machine, so it lies in the cache directory and not in the version's file.
"""

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from app.engines.model.cores import thread_count
from app.engines.model.version import Decoding, ModelVersion
from app.engines.model.weights import write

_TUNED = "tuned.json"
_CPU_INFO = Path("/proc/cpuinfo")


class Tuning(Struct, frozen=True, kw_only=True):
    """What was measured to be best: how many decisions a second, and `speedup` over the declared settings."""

    threads: int
    ubatch: int
    flash_attention: bool
    decisions_per_s: float
    speedup: float
    measured_at: str


def tuned(version: ModelVersion, *, cache_dir: Path) -> Decoding:
    """The version's decoding settings with what this machine was tuned to, if it was."""
    tuning = stored_tuning(version, cache_dir=cache_dir)
    return version.decoding if tuning is None else applied(version.decoding, tuning)


def applied(decoding: Decoding, tuning: Tuning) -> Decoding:
    return structs.replace(
        decoding, threads=tuning.threads, ubatch=tuning.ubatch, flash_attention=tuning.flash_attention
    )


def stored_tuning(version: ModelVersion, *, cache_dir: Path, cores: int | None = None) -> Tuning | None:
    """What was kept for so many cores of this machine, or for this process's; None where it cannot be read."""
    kept = _stored(cache_dir).get(key(version, thread_count(None) if cores is None else cores))
    try:
        return msgspec.convert(kept, Tuning | None)
    except msgspec.ValidationError:
        return None


def store_tuning(version: ModelVersion, tuning: Tuning, *, cache_dir: Path) -> None:
    """Keep it for every later load in a process with as many cores as this one. Raises `OSError`."""
    kept = {**_stored(cache_dir), key(version, thread_count(None)): structs.asdict(tuning)}
    write(cache_dir / _TUNED, json.dumps(kept, indent=1))


def key(version: ModelVersion, cores: int) -> str:
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
