"""Members of JSON objects: a key may occur once. For the `object_pairs_hook` of the standard library's parser."""

from collections.abc import Sequence
from typing import Any


class DuplicateKeyError(ValueError):
    """An object has a key twice."""

    def __init__(self, key: str) -> None:
        self.key = key[:100]
        super().__init__(f"duplicate key {self.key!r}")


def unique_members(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these members. Raises DuplicateKeyError for the first key that occurs again."""
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKeyError(key)
            seen.add(key)
    return members
