"""Prefixes of prompts, and the replica that computed each prefix last."""

import hashlib
from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence

import orjson

CHUNK_CHARACTERS = 128
"""About one KV block of 32 tokens; only whole blocks are cached."""
MAX_CHUNKS = 64
"""Longer prefixes are not distinguished: 1024 positions are about 4 000 characters."""
DIGEST_BYTES = 8


def prefixes_of(body: bytes, prompt_keys: Iterable[str]) -> tuple[bytes, ...]:
    """Digests of the prompt's first one, two, three … chunks. Empty without a prompt of at least one chunk.

    Only a hint for routing: the application refuses an invalid body.
    """
    try:
        fields = orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        return ()
    if not isinstance(fields, dict):
        return ()
    text = _prompt_text(next((value for key in prompt_keys if (value := fields.get(key))), None))
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digests = []
    for end in range(CHUNK_CHARACTERS, min(len(text), MAX_CHUNKS * CHUNK_CHARACTERS) + 1, CHUNK_CHARACTERS):
        digest.update(text[end - CHUNK_CHARACTERS : end].encode(errors="surrogatepass"))
        digests.append(digest.digest())
    return tuple(digests)


def _prompt_text(value: object) -> str:
    """The text, the first of several texts, or the joined messages, parts or token ids."""
    match value:
        case str():
            return value
        case [str() | list() as first, *_]:
            return _prompt_text(first)
        case [int(), *_]:
            return " ".join(map(str, value[: MAX_CHUNKS * CHUNK_CHARACTERS]))
        case [dict(), *_]:
            parts = [part.get("content", part.get("text")) for part in value if isinstance(part, dict)]
            return "\n".join(map(_prompt_text, parts))
    return ""


class PrefixMemory:
    """Remembers the last replica of each prefix. Bounded: evicts the least recently used. Mutable."""

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
        """The replica in `among` that holds the longest of these prefixes, if any does."""
        for prefix in reversed(prefixes):
            holder = self._holders.get(prefix)
            if holder is not None and holder in among:
                return holder
        return None
