"""Remembers which replica computed which prompt prefix last."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence

import orjson

CHUNK_CHARACTERS = 128
"""About the 32 tokens of a KV block: only complete blocks are cached."""
MAX_CHUNKS = 64
"""Text beyond this is ignored: 1024 positions are about 4 000 characters."""
DIGEST_BYTES = 8


def prefixes_of(body: bytes, prompt_keys: Iterable[str]) -> tuple[bytes, ...]:
    """Digests of the prompt's first one, two, three … chunks; empty if the prompt is shorter than a chunk.

    Only a hint, without validation: the application refuses invalid bodies.
    """
    try:
        fields = orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        return ()
    if not isinstance(fields, dict):
        return ()
    text = _beginning(next((value for key in prompt_keys if (value := fields.get(key))), None))
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digests = []
    for end in range(CHUNK_CHARACTERS, min(len(text), MAX_CHUNKS * CHUNK_CHARACTERS) + 1, CHUNK_CHARACTERS):
        digest.update(text[end - CHUNK_CHARACTERS : end].encode(errors="surrogatepass"))
        digests.append(digest.digest())
    return tuple(digests)


def _beginning(value: object) -> str:
    """The text; of a list of texts the first; of messages, their parts or token ids all, concatenated."""
    match value:
        case str():
            return value
        case [str() | list() as first, *_]:
            return _beginning(first)
        case [int(), *_]:
            return " ".join(map(str, value[: MAX_CHUNKS * CHUNK_CHARACTERS]))
        case [dict(), *_]:
            parts = [part.get("content", part.get("text")) for part in value if isinstance(part, dict)]
            return "\n".join(map(_beginning, parts))
    return ""


class PrefixMemory:
    """Maps prefixes to the replica that had them last, least recently used ones evicted first. Mutable."""

    def __init__(self, max_prefixes: int = 65536) -> None:
        self._max_prefixes = max_prefixes
        self._holders: OrderedDict[bytes, str] = OrderedDict()

    def note(self, prefixes: Sequence[bytes], holder: str) -> None:
        for prefix in prefixes:
            self._holders[prefix] = holder
            self._holders.move_to_end(prefix)
        while len(self._holders) > self._max_prefixes:
            self._holders.popitem(last=False)

    def find(self, prefixes: Sequence[bytes], among: Container[str]) -> str | None:
        """The replica in `among` that holds the longest of these prefixes, if any."""
        for prefix in reversed(prefixes):
            holder = self._holders.get(prefix)
            if holder is not None and holder in among:
                return holder
        return None
