"""How much memory does a version take, and how much may all of them take together?"""

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

from app.engines.model.cores import cgroup_folders, content_of
from app.engines.model.version import ModelVersion

MIB = 2**20
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_PROCESS = 256 * MIB  # the interpreter, the adapter and the buffers of a computation
_GROWTH = {"q4_0": 1.0, "q8_0": 2.0, "f16": 4.0}  # of a copy in another layout, made from 4 bit
_FALLBACK_PER_TOKEN = 128 * 1024  # where the file does not say; that of a model of 4 billion parameters
_HALVES = 2 * 2  # keys and values, of two bytes each

# What GGUF calls the types of its values (ggml, docs/gguf.md), by their number.
_NUMBERS = dict(enumerate(("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?"))) | dict(
    enumerate(("<Q", "<q", "<d"), 10)
)
_STRING, _ARRAY = 8, 9


def memory_limit() -> int:
    """Half of the machine's memory, or of the container's where that is less; in bytes."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(whole, container_limit(_OWN_CGROUP, _CGROUPS) or whole) // 2


def container_limit(own_cgroup: Path, cgroups: Path) -> int | None:
    """The smallest memory limit, in bytes, on the way from this process's cgroup to the root."""
    limits = [
        int(text)
        for folder in cgroup_folders(own_cgroup, cgroups, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := content_of(folder / name).strip()).isdigit()
    ]
    return min(limits, default=None)


def estimate(version: ModelVersion, model: Path) -> int:
    """Bytes that a worker of this version takes at most: its weights, its context, and the process.

    What lies on a GPU counts too. Raises `OSError`.
    """
    weights = model.stat().st_size * _GROWTH.get(version.model.requantise or "", 1.0)
    return int(weights) + version.decoding.n_ctx * bytes_per_token(model) + _PROCESS


def bytes_per_token(model: Path) -> int:
    """What one token takes in the context of a model in GGUF: keys and values of 16 bits, all layers."""
    try:
        with model.open("rb") as file:
            facts = _facts(file)
        heads = facts["attention.head_count"]
        width = facts.get("attention.key_length", facts["embedding_length"] // heads)
        return _HALVES * facts["block_count"] * facts.get("attention.head_count_kv", heads) * width
    except (KeyError, ValueError, ZeroDivisionError, struct.error):
        return _FALLBACK_PER_TOKEN


def _facts(file: BinaryIO) -> dict[str, int]:
    """The whole numbers that describe a model's shape, without the name of its architecture before them."""
    facts: dict[str, int] = {}
    magic, _, _, count = _read(file, "<4sIQQ")
    if magic != b"GGUF":
        raise ValueError("no GGUF file")
    for _ in range(count):
        key = _string(file)
        if key.startswith("tokenizer."):  # long, and behind what describes the shape
            break
        value = _value(file, _read(file, "<I")[0])
        if isinstance(value, int):
            facts[key.partition(".")[2]] = value
    return facts


def _value(file: BinaryIO, kind: int) -> object:
    """A number, or the greatest of a list of them; None for everything else."""
    if kind == _STRING:
        _string(file)
        return None
    if kind == _ARRAY:
        inner, length = _read(file, "<IQ")
        values = [_value(file, inner) for _ in range(length)]
        return max((value for value in values if isinstance(value, int)), default=None)
    return _read(file, _NUMBERS[kind])[0]


def _string(file: BinaryIO) -> str:
    (length,) = _read(file, "<Q")
    return file.read(min(length, MIB)).decode("utf-8", "replace")


def _read(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
