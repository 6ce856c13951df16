"""How is llama.cpp driven: load, tokenise, decode on a sequence, stop?

One runtime belongs to one thread. It keeps the shared prefix of every prompt on sequence 0 and
decodes what follows on a fork of it, always in the same layout, so that the same tokens give the
same logits to the bit, whatever was decoded or aborted before.
"""

import ctypes
import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engines.model.version import Decoding
from app.errors import PhasegateError

# Read by OpenMP's runtime when the import below loads it. Threads that spin while they wait starve each
# other on a busy machine: two on two busy cores decode 35 tokens/s spinning and 264 sleeping.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from llama_cpp import llama_cpp

Abort = Callable[[], bool]
Logits = NDArray[np.float64]

_PREFIX, _WORK = 0, 1  # sequence ids
_SEQUENCES = 2
_ABORTED = 2  # llama_decode's return code
_FORBIDDEN = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
_OFFLOADED = re.compile(r"offloaded (\d+)/\d+ layers")

_log: deque[str] = deque(maxlen=400)


class ModelError(PhasegateError):
    """llama.cpp refused to load or to decode; the message holds its last words."""


class Aborted(Exception):
    """The computation was stopped on request."""


def never() -> bool:
    """The abort check of work that nothing stops."""
    return False


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_log(_level: int, text: bytes | None, _data: object) -> None:
    _log.append((text or b"").decode("utf-8", "replace"))


def silence() -> None:
    """Keep llama.cpp's log in memory instead of on the terminal."""
    llama_cpp.llama_log_set(_keep_log, ctypes.c_void_p(0))


def last_words() -> str:
    """The end of llama.cpp's log, on one line."""
    return " ".join("".join(_log).split())[-300:]


def requantise(source: Path, target: Path, *, threads: int) -> None:
    """Write the model in the Q8_0 layout. Raises `ModelError`."""
    silence()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    parameters.allow_requantize = True
    parameters.nthread = threads
    code = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(parameters)
    )
    if code != 0:
        raise ModelError(f"{source} cannot be requantised to {target}: {last_words()}")


class Runtime:
    """One loaded model with its adapter and one context."""

    def __init__(
        self, model: Path, *, adapter: tuple[Path, float] | None, decoding: Decoding, threads: int
    ) -> None:
        silence()
        _log.clear()
        llama_cpp.llama_backend_init()
        self._abort: Abort = never
        self._stop = llama_cpp.ggml_abort_callback(lambda _data: self._abort())
        self._prefix_length = 0
        self._chunk = decoding.ubatch
        self._model = self._load_model(model, decoding)
        self.vocabulary: Any = llama_cpp.llama_model_get_vocab(self._model)
        self._size = int(llama_cpp.llama_vocab_n_tokens(self.vocabulary))
        self._context = self._open_context(decoding, threads)
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self._batch: Any = llama_cpp.llama_batch_init(self._chunk, 0, 1)
        if adapter is not None:
            self._apply(*adapter)
        offloaded = _OFFLOADED.findall("".join(_log))
        self.offloaded_layers = int(offloaded[-1]) if offloaded else 0

    def close(self) -> None:
        """Free what llama.cpp holds. The runtime is unusable afterwards."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def template_tokens(self, text: str) -> list[int]:
        """Tokens of a template's own text, control tokens included."""
        return self._tokens(text.encode(), special=True)

    def caller_tokens(self, text: str) -> list[int]:
        """Tokens of a caller's text: never a control token, whatever it spells.

        Some vocabularies hold chat markers as user-defined tokens, which llama.cpp recognises even
        where special ones are off: those are broken up, and dropped if that does not help.
        """
        tokens = self._tokens(text.encode("utf-8", "replace"), special=False)
        if not any(self._is_marker(token) for token in tokens):
            return tokens
        for piece in {
            self.piece(token).decode("utf-8", "replace") for token in tokens if self._is_marker(token)
        }:
            text = text.replace(piece, f"{piece[:1]} {piece[1:]}")
        tokens = self._tokens(text.encode("utf-8", "replace"), special=False)
        return [token for token in tokens if not self._is_marker(token)]

    def piece(self, token: int) -> bytes:
        """What a token spells."""
        room = ctypes.create_string_buffer(256)
        length = llama_cpp.llama_token_to_piece(self.vocabulary, token, room, len(room), 0, True)
        return room.raw[: max(length, 0)]

    def ends(self, token: int) -> bool:
        """Whether a token ends a turn."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocabulary, token))

    def is_control(self, token: int) -> bool:
        return bool(llama_cpp.llama_vocab_is_control(self.vocabulary, token))

    def set_prefix(self, tokens: Sequence[int]) -> None:
        """Decode the shared prefix once. It stays until the runtime is closed."""
        self._decode(tokens, sequence=_PREFIX, start=0)
        self._prefix_length = len(tokens)

    def fork(self) -> None:
        """Begin a prompt: a sequence that holds the prefix and nothing else."""
        self.forget()
        llama_cpp.llama_memory_seq_cp(self._memory, _PREFIX, _WORK, -1, -1)
        self._end = self._prefix_length

    def extend(self, tokens: Sequence[int], *, abort: Abort = never) -> Logits:
        """Decode what follows and give the logits of the last row. Raises `Aborted`, `ModelError`."""
        self._abort = abort
        try:
            self._decode(tokens, sequence=_WORK, start=self._end)
        finally:
            self._abort = never
        self._end += len(tokens)
        row = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(row, (self._size,)).astype(np.float64)

    def forget(self) -> None:
        """Drop the prompt at hand; the prefix stays."""
        llama_cpp.llama_memory_seq_rm(self._memory, _WORK, -1, -1)

    def _decode(self, tokens: Sequence[int], *, sequence: int, start: int) -> None:
        for offset in range(0, len(tokens), self._chunk):
            # llama.cpp asks the abort callback on the CPU only: on a GPU this check is the one.
            if self._abort():
                raise Aborted
            chunk = tokens[offset : offset + self._chunk]
            self._fill(chunk, sequence=sequence, start=start + offset)
            code = llama_cpp.llama_decode(self._context, self._batch)
            if code == _ABORTED:
                raise Aborted
            if code != 0:
                raise ModelError(f"llama_decode returned {code}: {last_words()}")

    def _fill(self, tokens: Sequence[int], *, sequence: int, start: int) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for row, token in enumerate(tokens):
            batch.token[row], batch.pos[row] = token, start + row
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
            batch.logits[row] = 0
        batch.logits[len(tokens) - 1] = 1

    def _tokens(self, text: bytes, *, special: bool) -> list[int]:
        # A token spells at least one byte; a beginning-of-text token, where a model wants one, is
        # written in its template.
        room = (llama_cpp.llama_token * (len(text) + 8))()
        count = llama_cpp.llama_tokenize(self.vocabulary, text, len(text), room, len(room), False, special)
        if count < 0:
            raise ModelError(f"llama_tokenize returned {count}")
        return list(room[:count])

    def _is_marker(self, token: int) -> bool:
        attributes = llama_cpp.llama_vocab_get_attr(self.vocabulary, token)
        return bool(attributes & _FORBIDDEN) and bool(self.piece(token).strip())

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
