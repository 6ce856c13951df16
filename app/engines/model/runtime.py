"""How is llama.cpp driven: load, decode on a sequence, stop?

One runtime belongs to one thread. It decodes each prompt behind its slot's prefix, always in the same
place and layout, so that the same tokens give the same logits to the bit, whatever was decoded or
aborted before and whichever other prefixes are kept.
"""

import ctypes
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from llama_cpp import llama_cpp
from numpy.typing import NDArray

from app.engines.model.batch import Batch, Rows, chunks, rows_of
from app.engines.model.device import device_of
from app.engines.model.version import Decoding
from app.engines.model.vocabulary import Vocabulary
from app.errors import PhasegateError

Abort = Callable[[], bool]
Logits = NDArray[np.float32]
Hidden = NDArray[np.float32]
Read = TypeVar("Read")

MOST_TOGETHER = 16
_PREFIX, _WORK = 0, 1  # sequence ids: the prefix's, and the first of its forks
_SEQUENCES = _WORK + MOST_TOGETHER
_ABORTED = 2  # llama_decode's return code

_DEBUG = 1  # GGML_LOG_LEVEL_DEBUG
_log: deque[str] = deque(maxlen=400)


class ModelError(PhasegateError):
    """llama.cpp refused to load or to decode; the message holds its last words."""


class Aborted(Exception):
    """The computation was stopped on request."""


def never() -> bool:
    """The abort check of work that nothing stops."""
    return False


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_log(level: int, text: bytes | None, _data: object) -> None:
    if level != _DEBUG:  # a thousand lines a load, which would push out the rest
        _log.append((text or b"").decode("utf-8", "replace"))


def silence() -> None:
    """Keep llama.cpp's log in memory instead of on the terminal."""
    llama_cpp.llama_log_set(_keep_log, ctypes.c_void_p(0))


def last_words() -> str:
    """The end of llama.cpp's log, on one line."""
    return " ".join("".join(_log).split())[-300:]


@dataclass(slots=True)
class _Prefix:
    """`state` is what it left in the model's memory, from when another one took its place there."""

    length: int
    state: Any = None


class Runtime(Vocabulary):
    """One loaded model with its adapter and one context. A slot is the name of a prefix."""

    def __init__(
        self, model: Path, *, adapter: tuple[Path, float] | None, decoding: Decoding, threads: int
    ) -> None:
        silence()
        _log.clear()
        llama_cpp.llama_backend_init()
        self._abort: Abort = never
        self._stop = llama_cpp.ggml_abort_callback(lambda _data: self._abort())
        self._prefixes: dict[str, _Prefix] = {}
        self._resident: str | None = None
        self._end = self._forks = 0
        self._chunk = decoding.ubatch
        self._model = self._load_model(model, decoding)
        self.device = device_of("".join(_log), threads=threads)
        super().__init__(self._model)
        self._width = int(llama_cpp.llama_model_n_embd(self._model))
        self._context: Any = None
        try:
            self._context = self._open_context(decoding, threads)
            if adapter is not None:
                self._apply(*adapter)
        except ModelError:
            self.close()
            raise
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self._batch = Batch(self._chunk)

    def close(self) -> None:
        """Free what llama.cpp holds. The runtime is unusable afterwards."""
        if self._context:
            llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    @property
    def n_ctx(self) -> int:
        """Tokens that the context holds."""
        return int(llama_cpp.llama_n_ctx(self._context))

    def set_prefix(self, tokens: Sequence[int], *, slot: str = "") -> None:
        """Decode what the prompts of a slot begin with, once. Raises `ModelError`."""
        while not self.grow_prefix(tokens, slot=slot):
            pass

    def grow_prefix(self, tokens: Sequence[int], *, slot: str, abort: Abort = never) -> bool:
        """Decode the next ubatch of a slot's prefix; True when that was the last of it.

        What was decoded is kept. Raises `Aborted`, `ModelError`.
        """
        done = self._stand_on(slot)
        if done == len(tokens):
            return True
        chunk = rows_of(tokens[done : done + self._chunk], sequence=_PREFIX, start=done)
        try:
            self._decode(chunk, abort)
        except BaseException:
            llama_cpp.llama_memory_seq_rm(self._memory, _PREFIX, done, -1)
            raise
        self._prefixes[slot] = _Prefix(done + chunk.shape[1])
        return self._prefixes[slot].length == len(tokens)

    def drop_prefix(self, slot: str) -> None:
        self._prefixes.pop(slot, None)
        if self._resident == slot:
            self._resident = None

    def fork(self, slot: str = "") -> None:
        """Begin a prompt: a sequence that holds the slot's prefix and nothing else."""
        self._end = self._stand_on(slot)
        self._fork()

    def extend(self, tokens: Sequence[int], *, abort: Abort = never) -> Logits:
        """Decode what follows and give the logits of its last row, which hold until the next decode.

        Raises `Aborted`, `ModelError`.
        """
        for chunk in chunks(rows_of(tokens, sequence=_WORK, start=self._end), self._chunk):
            self._decode(chunk, abort)
        self._end += len(tokens)
        return self.logits(-1)

    def read_together(
        self,
        prompts: Sequence[Sequence[int]],
        read: Callable[[int, int], Read],
        *,
        slot: str = "",
        abort: Abort = never,
    ) -> list[Read]:
        """Decode up to `MOST_TOGETHER` prompts in common ubatches; `read` makes something of each.

        It is called with the prompt's index and the row of its last token. Each prompt is a sequence of
        its own, yet its logits depend a little on its neighbours. Raises `Aborted`, `ModelError`.
        """
        start = self._stand_on(slot)
        rows = [rows_of(tokens, sequence=self._fork(), start=start) for tokens in prompts]
        found: list[Read] = []
        for chunk in chunks(np.concatenate(rows, axis=1), self._chunk):
            self._decode(chunk, abort)
            for row in np.flatnonzero(chunk[3]):
                found.append(read(len(found), int(row)))
        return found

    def logits(self, row: int) -> Logits:
        """Of a row of the last ubatch that is read; -1 is the last. They hold until the next decode."""
        return _array(llama_cpp.llama_get_logits_ith(self._context, row), self.size)

    def hidden(self, row: int) -> Hidden:
        """The model's last hidden state at a row that is read, where it was decoded `with_hidden`."""
        return _array(llama_cpp.llama_get_embeddings_ith(self._context, row), self._width).copy()

    @contextmanager
    def with_hidden(self) -> Iterator[None]:
        """Decode such that hidden states can be read: dearer, with the same logits to the bit."""
        llama_cpp.llama_set_embeddings(self._context, True)
        try:
            yield
        finally:
            llama_cpp.llama_set_embeddings(self._context, False)

    def forget(self) -> None:
        """Drop the prompts at hand; the prefixes stay."""
        while self._forks:
            llama_cpp.llama_memory_seq_rm(self._memory, _PREFIX + self._forks, -1, -1)
            self._forks -= 1

    def _fork(self) -> int:
        self._forks += 1
        llama_cpp.llama_memory_seq_cp(self._memory, _PREFIX, _PREFIX + self._forks, -1, -1)
        return _PREFIX + self._forks

    def _stand_on(self, slot: str) -> int:
        """Put a slot's prefix at the beginning of the memory, alone; gives its length.

        The last bits of a prompt's logits depend on where in the memory it lies, so no prefix lies
        beside another: it is put aside, and brought back as it was.
        """
        self.forget()
        prefix = self._prefixes.setdefault(slot, _Prefix(0))
        if self._resident != slot:
            if self._resident is not None:
                self._put_aside(self._prefixes[self._resident])
            self._resident = None  # as long as it is not known whose prefix lies there
            llama_cpp.llama_memory_clear(self._memory, False)
            self._bring_back(prefix)
            self._resident = slot
        return prefix.length

    def _put_aside(self, prefix: _Prefix) -> None:
        if prefix.state is None and prefix.length:
            size = llama_cpp.llama_state_seq_get_size(self._context, _PREFIX)
            state = (ctypes.c_uint8 * size)()
            if llama_cpp.llama_state_seq_get_data(self._context, state, size, _PREFIX) != size:
                raise ModelError(f"a prefix cannot be put aside: {last_words()}")
            prefix.state = state

    def _bring_back(self, prefix: _Prefix) -> None:
        if prefix.state is not None:
            size = len(prefix.state)
            if llama_cpp.llama_state_seq_set_data(self._context, prefix.state, size, _PREFIX) != size:
                raise ModelError(f"a prefix cannot be brought back: {last_words()}")

    def _decode(self, rows: Rows, abort: Abort) -> None:
        # llama.cpp asks the abort callback on the CPU only: on a GPU this check is the one.
        if abort():
            raise Aborted
        self._abort = abort
        try:
            code = llama_cpp.llama_decode(self._context, self._batch.filled(rows))
        finally:
            self._abort = never
        if code == _ABORTED:
            raise Aborted
        if code != 0:
            raise ModelError(f"llama_decode returned {code}: {last_words()}")

    def _load_model(self, path: Path, decoding: Decoding) -> Any:
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = decoding.n_gpu_layers
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not model:
            raise ModelError(f"{path} is not a model that llama.cpp can load: {last_words()}")
        return model

    def _open_context(self, decoding: Decoding, threads: int) -> Any:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = decoding.n_ctx
        parameters.n_batch = parameters.n_ubatch = decoding.ubatch
        parameters.n_seq_max = _SEQUENCES
        parameters.kv_unified = True  # a prefix copy is free, and a partial one does not assert
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = 1 if decoding.flash_attention else 0
        parameters.abort_callback = self._stop
        parameters.no_perf = True
        context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not context:
            raise ModelError(f"no context of {decoding.n_ctx} tokens: {last_words()}")
        return context

    def _apply(self, path: Path, scale: float) -> None:
        adapter = llama_cpp.llama_adapter_lora_init(self._model, str(path).encode())
        if not adapter:
            raise ModelError(f"{path} is not an adapter for this model: {last_words()}")
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
        if llama_cpp.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(scale)) != 0:
            raise ModelError(f"{path} cannot be applied: {last_words()}")


def _array(pointer: Any, size: int) -> NDArray[np.float32]:
    return np.ctypeslib.as_array(pointer, (size,))
