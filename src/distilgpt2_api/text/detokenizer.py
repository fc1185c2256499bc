"""Token ids to text while they are drawn: a character may be spread over several tokens."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence

_Utf8Decoder = getincrementaldecoder("utf-8")


class IncrementalDetokenizer:
    """Mutable: the bytes of one sequence's last character, as long as it is not whole.

    All that `push` and `flush` return, joined, is the joined bytes decoded with errors="replace".
    """

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        """`token_bytes` by token id, as the tokenizer's."""
        self._token_bytes = token_bytes
        self._decode = _Utf8Decoder("replace").decode  # (bytes, final)

    def push(self, token_id: int) -> str:
        """The characters that this token completes. An id past the vocabulary, as a padded model may draw, has none."""
        if token_id >= len(self._token_bytes):
            return ""
        return self._decode(self._token_bytes[token_id])

    def flush(self) -> str:
        """At the end: U+FFFD if a character was left half said, else nothing."""
        return self._decode(b"", True)
