"""Searches the bytes of all tokens."""

from collections.abc import Sequence

import numpy as np


class VocabularyBytes:
    """All tokens' bytes, one behind the other: a search is one pass over them. Immutable."""

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        """`token_bytes`: by token id."""
        self._bytes = np.frombuffer(b"".join(token_bytes), dtype=np.uint8)
        self._lengths = np.array([len(token) for token in token_bytes])
        self._ends = np.cumsum(self._lengths)
        self._last_bytes = np.array([token[-1] if token else -1 for token in token_bytes], dtype=np.int16)

    def containing(self, text: bytes) -> list[int]:
        """Ids of the tokens that contain `text`, which is not empty."""
        starts = np.flatnonzero(self._bytes[: max(len(self._bytes) - len(text) + 1, 0)] == text[0])
        for offset, byte in enumerate(text[1:], start=1):
            starts = starts[self._bytes[starts + offset] == byte]
        token_ids = np.searchsorted(self._ends, starts, side="right")
        found: list[int] = np.unique(token_ids[starts + len(text) <= self._ends[token_ids]]).tolist()
        return found

    def ending_with(self, text: bytes) -> list[int]:
        """Ids of the tokens that end with `text`, which is not empty."""
        token_ids = np.flatnonzero(self._last_bytes == text[-1])
        token_ids = token_ids[self._lengths[token_ids] >= len(text)]
        for offset, byte in enumerate(reversed(text[:-1]), start=2):
            token_ids = token_ids[self._bytes[self._ends[token_ids] - offset] == byte]
        found: list[int] = token_ids.tolist()
        return found
