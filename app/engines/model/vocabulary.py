"""How does text become tokens, and which tokens may never come from a caller?"""

import ctypes
from typing import Any

from llama_cpp import llama_cpp

_FORBIDDEN = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED


class Vocabulary:
    """A loaded model's tokens; `size` is how many there are."""

    def __init__(self, model: Any) -> None:
        self.vocabulary: Any = llama_cpp.llama_model_get_vocab(model)
        self.size = int(llama_cpp.llama_vocab_n_tokens(self.vocabulary))

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

    def _tokens(self, text: bytes, *, special: bool) -> list[int]:
        # A token spells at least one byte; a beginning-of-text token, where a model wants one, is
        # written in its template.
        room = (llama_cpp.llama_token * (len(text) + 8))()
        count = llama_cpp.llama_tokenize(self.vocabulary, text, len(text), room, len(room), False, special)
        assert count >= 0
        return list(room[:count])

    def _is_marker(self, token: int) -> bool:
        attributes = llama_cpp.llama_vocab_get_attr(self.vocabulary, token)
        return bool(attributes & _FORBIDDEN) and bool(self.piece(token).strip())
