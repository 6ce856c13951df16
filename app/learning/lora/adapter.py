"""What is a LoRA adapter, and how is it kept in a GGUF file?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from app.errors import PhasegateError

Matrix = NDArray[np.float32]

MAX_BYTES = 10_000_000
_DOWN, _UP = ".lora_a", ".lora_b"


class AdapterError(PhasegateError):
    """A file that is no adapter, or one that does not fit its base; the message names the file."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """Low-rank changes to weights: W + alpha / rank * up @ down (Hu et al. 2021, section 4.1).

    `factors` holds (down, up) by weight name, such as `blk.0.attn_q.weight`, of shapes
    (rank, inputs) and (outputs, rank).
    """

    rank: int
    alpha: float
    factors: Mapping[str, tuple[Matrix, Matrix]]


def write_adapter(path: Path, adapter: Adapter, *, architecture: str = "llama") -> None:
    """Write it in half precision as llama.cpp loads it. Raises `AdapterError` above `MAX_BYTES`."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.alpha)
    for name, (down, up) in adapter.factors.items():
        writer.add_tensor(name + _DOWN, np.ascontiguousarray(down, dtype=np.float16))
        writer.add_tensor(name + _UP, np.ascontiguousarray(up, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if path.stat().st_size > MAX_BYTES:
        raise AdapterError(
            f"{path} has {path.stat().st_size} bytes, more than {MAX_BYTES}: train a lower rank"
        )


def read_adapter(path: Path) -> Adapter:
    """Raises `AdapterError` for a file that is no LoRA adapter, `OSError` where it cannot be read."""
    try:
        file = gguf.GGUFReader(path)
    except ValueError as error:
        raise AdapterError(f"{path} is no GGUF file: {error}") from error
    alpha = file.get_field(gguf.Keys.Adapter.LORA_ALPHA)
    tensors = {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in file.tensors}
    factors = dict(_pairs(tensors))
    if alpha is None or not factors or len(tensors) != 2 * len(factors):
        raise AdapterError(f"{path} is no LoRA adapter: train one, or restore it from the release")
    ranks = {down.shape[0] for down, _ in factors.values()}
    if len(ranks) != 1:
        raise AdapterError(f"{path} mixes the ranks {sorted(ranks)}: adapters of one rank are supported")
    return Adapter(ranks.pop(), float(alpha.contents()), factors)


def _pairs(tensors: Mapping[str, Matrix]) -> Iterator[tuple[str, tuple[Matrix, Matrix]]]:
    for name, down in tensors.items():
        weight = name.removesuffix(_DOWN)
        if weight != name and weight + _UP in tensors:
            yield weight, (down, tensors[weight + _UP])
