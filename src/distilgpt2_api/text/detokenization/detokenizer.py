"""Decodes token ids to text as they are sampled; a character may be spread over several tokens."""

from codecs import getincrementaldecoder
from collections.abc import Sequence

_Utf8Decoder = getincrementaldecoder("utf-8")
_NOTHING_HELD = _Utf8Decoder().getstate()


class IncrementalDetokenizer:
    """Mutable: the bytes of one sequence's last character while it is incomplete.

    The texts from `push` and `flush`, joined, equal the joined bytes decoded with errors="replace".
    """

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        """`token_bytes`: `Tokenizer.token_bytes`, by token id."""
        self._token_bytes = token_bytes
        self._decoder = _Utf8Decoder("replace")
        self.is_within_character = False
        """Whether the last token left a character incomplete. The next one completes or breaks it."""

    def push(self, token_id: int) -> str:
        """The characters that this token completes; none for an id past the vocabulary, as in a padded model."""
        if token_id >= len(self._token_bytes):
            return ""
        piece = self._token_bytes[token_id]
        if not self.is_within_character and piece.isascii():
            return piece.decode()  # nearly always
        text = self._decoder.decode(piece)
        self.is_within_character = self._decoder.getstate() != _NOTHING_HELD
        return text

    def flush(self) -> str:
        """At the end of the text: U+FFFD if a character is incomplete, else an empty string."""
        self.is_within_character = False
        return self._decoder.decode(b"", True)
