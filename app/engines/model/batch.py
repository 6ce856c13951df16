"""How are tokens laid out for one `llama_decode`?"""

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from llama_cpp import llama_cpp
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rows:
    """Tokens to decode, one a row: where each stands, on which sequence, and whether it is read."""

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    sequences: NDArray[np.int32]
    is_read: NDArray[np.int8]

    @classmethod
    def of(cls, tokens: Sequence[int], *, sequence: int, start: int) -> Self:
        """One sequence's next tokens, from position `start`; the last one is read."""
        count = len(tokens)
        is_read = np.zeros(count, np.int8)
        is_read[-1:] = 1
        return cls(
            np.array(tokens, np.int32),
            np.arange(start, start + count, dtype=np.int32),
            np.full(count, sequence, np.int32),
            is_read,
        )

    @classmethod
    def joined(cls, parts: Sequence["Rows"]) -> Self:
        return cls(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.positions for part in parts]),
            np.concatenate([part.sequences for part in parts]),
            np.concatenate([part.is_read for part in parts]),
        )

    def chunks(self, size: int) -> Iterator["Rows"]:
        """The rows in their order, at most `size` at a time."""
        for start in range(0, len(self.tokens), size):
            part = slice(start, start + size)
            yield Rows(self.tokens[part], self.positions[part], self.sequences[part], self.is_read[part])


class Batch:
    """A `llama_batch` over arrays that are written whole, not an element at a time."""

    def __init__(self, size: int) -> None:
        self._tokens = np.zeros(size, np.int32)
        self._positions = np.zeros(size, np.int32)
        self._counts = np.ones(size, np.int32)
        self._sequences = np.zeros(size, np.int32)
        self._is_read = np.zeros(size, np.int8)
        first, width = self._sequences.ctypes.data, self._sequences.itemsize
        self._addresses = np.arange(first, first + width * size, width, dtype=np.uintp)
        self._raw: Any = llama_cpp.llama_batch(
            token=_pointer(self._tokens, ctypes.c_int32),
            pos=_pointer(self._positions, ctypes.c_int32),
            n_seq_id=_pointer(self._counts, ctypes.c_int32),
            seq_id=_pointer(self._addresses, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self._is_read, ctypes.c_int8),
        )

    def filled(self, rows: Rows) -> Any:
        """The `llama_batch` of these rows, valid until the next call."""
        count = len(rows.tokens)
        self._raw.n_tokens = count
        self._tokens[:count] = rows.tokens
        self._positions[:count] = rows.positions
        self._sequences[:count] = rows.sequences
        self._is_read[:count] = rows.is_read
        return self._raw


def _pointer(array: NDArray[Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
