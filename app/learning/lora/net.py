"""How does a llama-family model, read from its GGUF file, turn tokens into label logits that can be trained?

Plain torch on the weights' own layout: rotary pairs are neighbours, several query heads share a key
head, and the base stays frozen. Only the adapter's factors have gradients.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from app.errors import PhasegateError
from app.learning.lora.adapter import Adapter, AdapterError
from app.learning.lora.batch import Batch

_ARCHITECTURE = "llama"
_ATTENTION_IN = ("attn_q", "attn_k", "attn_v")
_GROUPS = (_ATTENTION_IN, ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",))


class UnsupportedModel(PhasegateError):
    """The file holds a model that cannot be trained here; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the file says about the model."""

    layers: int
    width: int
    heads: int
    key_heads: int
    epsilon: float
    rope_base: float

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class Linear:
    """Frozen projections of one input, computed as one product, each with its low-rank change."""

    def __init__(
        self, weights: Mapping[str, Tensor], adapter: Adapter, generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        self.names = tuple(weights)
        self._sizes = [len(weight) for weight in weights.values()]
        self._weight = torch.cat(list(weights.values())).to(dtype)
        self._scale = adapter.alpha / adapter.rank
        self._rank = adapter.rank
        pairs = [_factors(name, weights[name], adapter, generator) for name in self.names]
        self.down = torch.cat([down for down, _ in pairs]).requires_grad_()
        self.ups = [up.requires_grad_() for _, up in pairs]

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        dtype = self._weight.dtype
        x = x.to(dtype)
        whole = functional.linear(x, self._weight).split(self._sizes, -1)
        inner = functional.linear(x, (self.down * self._scale).to(dtype)).split(self._rank, -1)
        return tuple(
            torch.addmm(part, low, up.T.to(dtype))
            for part, low, up in zip(whole, inner, self.ups, strict=True)
        )

    def freeze(self) -> None:
        for factor in (self.down, *self.ups):
            factor.requires_grad_(False)

    def factors(self) -> dict[str, tuple[Any, Any]]:
        downs = self.down.detach().split(self._rank)
        return {
            name: (down.numpy().copy(), up.detach().numpy().copy())
            for name, down, up in zip(self.names, downs, self.ups, strict=True)
        }


class Net:
    """The base with an adapter that can be trained. Works on `Batch`es; belongs to one thread."""

    def __init__(
        self, model: Path, adapter: Adapter, *, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        """Load it; weights without a factor in `adapter` begin as no change, random by `seed`.

        `dtype` is that of the large products: bfloat16 is twice as fast where the processor has it;
        the residual stream and the factors stay in single precision. Raises `UnsupportedModel`,
        `AdapterError`, `OSError`.
        """
        file = gguf.GGUFReader(model)
        self.shape = _shape(model, file)
        weights = _weights(model, file)
        _require_fit(adapter, weights)
        generator = torch.Generator().manual_seed(seed)
        self._embedding = weights["token_embd.weight"]
        self._output = weights.get("output.weight", self._embedding)
        self._output_norm = weights["output_norm.weight"]
        self._alpha, self._rank = adapter.alpha, adapter.rank
        self._norms: list[tuple[Tensor, Tensor]] = []
        self._layers: list[list[Linear]] = []
        for layer in range(self.shape.layers):
            block = f"blk.{layer}."
            self._norms.append((weights[f"{block}attn_norm.weight"], weights[f"{block}ffn_norm.weight"]))
            named = [
                {f"{block}{name}.weight": weights[f"{block}{name}.weight"] for name in group}
                for group in _GROUPS
            ]
            self._layers.append([Linear(group, adapter, generator, dtype) for group in named])

    def parameters(self, *, from_layer: int = 0) -> list[Tensor]:
        """What is trained: the factors of `from_layer` and above. Those below are frozen from now on."""
        for layer in self._layers[:from_layer]:
            for linear in layer:
                linear.freeze()
        return [
            factor
            for layer in self._layers[from_layer:]
            for linear in layer
            for factor in (linear.down, *linear.ups)
        ]

    def adapter(self) -> Adapter:
        """The factors as they are now."""
        factors = {
            name: pair
            for layer in self._layers
            for linear in layer
            for name, pair in linear.factors().items()
        }
        return Adapter(self._rank, self._alpha, factors)

    def read(self, batch: Batch, labels: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The labels' logits (views, labels), and the logarithm of their share of the whole softmax (views,)."""
        rows, length = batch.tokens.shape
        mask = _mask(batch)
        turn = _rotation(batch.positions, self.shape)
        x = self._embedding[torch.from_numpy(batch.tokens).view(-1)]
        for (attention_norm, forward_norm), (qkv, out, gate_up, down) in zip(
            self._norms, self._layers, strict=True
        ):
            parts = qkv(self._normed(x, attention_norm))
            mixed = self._attend(parts, turn, mask, rows, length)
            x = x + out(mixed)[0]
            gate, up = gate_up(self._normed(x, forward_norm))
            x = x + down(functional.silu(gate) * up)[0]
        decided = x[torch.from_numpy(batch.decided)]
        logits = functional.linear(self._normed(decided, self._output_norm), self._output)
        chosen = logits[:, list(labels)]
        return chosen, chosen.logsumexp(-1) - logits.logsumexp(-1)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(x, (self.shape.width,), weight, self.shape.epsilon)

    def _attend(
        self, parts: tuple[Tensor, ...], turn: tuple[Tensor, Tensor], mask: Tensor, rows: int, length: int
    ) -> Tensor:
        heads, key_heads, width = self.shape.heads, self.shape.key_heads, self.shape.head_width
        q, k, v = (part.view(rows, length, -1, width).transpose(1, 2) for part in parts)
        # Query heads of one key head as one product. Written out: a tenth faster than torch's fused form here.
        q = _rotated(q, turn).reshape(rows, key_heads, -1, width) * width**-0.5
        weights = (q @ _rotated(k, turn).transpose(2, 3)).view(rows, heads, length, length)
        weights = weights.masked_fill(mask, -1e4).softmax(-1).view(rows, key_heads, -1, length)
        return (weights @ v).view(rows, heads, length, width).transpose(1, 2).reshape(rows * length, -1)


def _mask(batch: Batch) -> Tensor:
    """Who does not see whom, (rows, 1, length, length): each sees what came before it, in the shared part or in its own tail."""
    tail = torch.from_numpy(batch.tails)
    before = torch.ones(tail.shape[1], tail.shape[1], dtype=torch.bool).tril()
    return ~(before & ((tail[:, None, :] == 0) | (tail[:, None, :] == tail[:, :, None])))[:, None]


def _rotation(positions: Any, shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosine and sine by position and pair, (rows, 1, length, pairs) (Su et al. 2021, equation 15)."""
    pair = torch.arange(0, shape.head_width, 2, dtype=torch.float64) / shape.head_width
    angle = torch.from_numpy(positions)[:, None, :, None] * shape.rope_base**-pair
    return angle.cos().float(), angle.sin().float()


def _rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = (part.to(x.dtype) for part in turn)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def _factors(
    name: str, weight: Tensor, adapter: Adapter, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    if name in adapter.factors:
        down, up = adapter.factors[name]
        return torch.from_numpy(down.copy()), torch.from_numpy(up.copy())
    outputs, inputs = weight.shape
    down = (torch.rand(adapter.rank, inputs, generator=generator) * 2 - 1) / math.sqrt(inputs)
    return down, torch.zeros(outputs, adapter.rank)


def _shape(model: Path, file: gguf.GGUFReader) -> Shape:
    def read(key: str) -> Any:
        field = file.get_field(key)
        return None if field is None else field.contents()

    architecture = read("general.architecture")
    if architecture != _ARCHITECTURE:
        raise UnsupportedModel(
            f"{model} is of architecture {architecture}: only {_ARCHITECTURE} models can be trained here"
        )
    key = {name: read(f"{_ARCHITECTURE}.{name}") for name in _KEYS}
    shape = Shape(*(key[name] for name in _KEYS[:6]))
    if key["rope.dimension_count"] not in (None, shape.head_width) or key["rope.scaling.type"] not in (
        None,
        "none",
    ):
        raise UnsupportedModel(f"{model} turns its heads in a way that is not supported here")
    return shape


_KEYS = (
    "block_count",
    "embedding_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scaling.type",
)


def _weights(model: Path, file: gguf.GGUFReader) -> dict[str, Tensor]:
    weights = {
        tensor.name: torch.from_numpy(
            np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        )
        for tensor in file.tensors
    }
    strange = [name for name in weights if name.endswith(".bias") or name.startswith("rope_freqs")]
    if strange:
        raise UnsupportedModel(f"{model} holds {strange[0]}, which is not supported here")
    return weights


def _require_fit(adapter: Adapter, weights: Mapping[str, Tensor]) -> None:
    for name, (down, up) in adapter.factors.items():
        weight = weights.get(name)
        if weight is None or tuple(weight.shape) != (up.shape[0], down.shape[1]):
            raise AdapterError(
                f"the adapter's {name} does not fit the model: choose the adapter of this base"
            )
