"""How are tokens laid out for one `llama_decode`?"""

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from llama_cpp import llama_cpp
from numpy.typing import NDArray

# (4, n): of n tokens, which each is, where it stands, on which sequence, and whether it is read (0 or 1).
Rows = NDArray[np.int32]


def rows_of(tokens: Sequence[int], *, sequence: int, start: int) -> Rows:
    """One sequence's next tokens, from position `start`; the last one is read."""
    rows = np.zeros((4, len(tokens)), np.int32)
    rows[0], rows[1], rows[2] = tokens, np.arange(start, start + len(tokens)), sequence
    rows[3, -1:] = 1
    return rows


def chunks(rows: Rows, size: int) -> Iterator[Rows]:
    """The rows in their order, at most `size` at a time."""
    for start in range(0, rows.shape[1], size):
        yield rows[:, start : start + size]


class Batch:
    """A `llama_batch` over arrays that are written whole, not an element at a time."""

    def __init__(self, size: int) -> None:
        self._rows: Rows = np.zeros((3, size), np.int32)
        self._is_read = np.zeros(size, np.int8)
        self._counts = np.ones(size, np.int32)
        sequences = self._rows[2]
        first, width = sequences.ctypes.data, sequences.itemsize
        self._addresses = np.arange(first, first + width * size, width, dtype=np.uintp)
        self._raw: Any = llama_cpp.llama_batch(
            token=_pointer(self._rows[0], ctypes.c_int32),
            pos=_pointer(self._rows[1], ctypes.c_int32),
            n_seq_id=_pointer(self._counts, ctypes.c_int32),
            seq_id=_pointer(self._addresses, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self._is_read, ctypes.c_int8),
        )

    def filled(self, rows: Rows) -> Any:
        """The `llama_batch` of these rows, valid until the next call."""
        count = self._raw.n_tokens = rows.shape[1]
        self._rows[:, :count] = rows[:3]
        self._is_read[:count] = rows[3]
        return self._raw


def _pointer(array: NDArray[Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
