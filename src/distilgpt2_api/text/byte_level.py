"""GPT-2's byte-level alphabet: a printable character for each of the 256 bytes (Radford et al. 2019, `encoder.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


def _byte_of_character() -> Mapping[str, int]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return MappingProxyType(alphabet)


BYTE_OF_CHARACTER = _byte_of_character()
"""Printable bytes stand for themselves, the others for the characters from U+0100 on: a space is `Ġ`."""

# For str.translate, which is more than twice as fast as a lookup for each character. Latin-1 characters outside the
# alphabet would pass as bytes: they are led to one that can't.
_TRANSLATION = dict.fromkeys(range(256), 256) | {ord(char): byte for char, byte in BYTE_OF_CHARACTER.items()}


def to_bytes(token: str) -> bytes:
    """What a token of the vocabulary stands for; ValueError if it has a character that stands for no byte."""
    return token.translate(_TRANSLATION).encode("latin-1")
