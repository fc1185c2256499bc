"""GPT-2's byte-level alphabet: a printable character for each of the 256 bytes (Radford et al. 2019, `encoder.py`)."""

from collections.abc import Mapping
from types import MappingProxyType


def _byte_of_character() -> Mapping[str, int]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return MappingProxyType(alphabet)


BYTE_OF_CHARACTER = _byte_of_character()
"""A printable byte maps to itself, any other to a character from U+0100 on: a space is `Ġ`."""

# For str.translate, which is more than twice as fast as a lookup for each character. Latin-1 characters outside the
# alphabet would pass as bytes, so they map to a character that can't.
_TRANSLATION = dict.fromkeys(range(256), 256) | {ord(char): byte for char, byte in BYTE_OF_CHARACTER.items()}


def is_byte_level(token: str) -> bool:
    """Whether all characters are in the alphabet."""
    return BYTE_OF_CHARACTER.keys() >= set(token)


def to_bytes(token: str) -> bytes:
    """The bytes of a vocabulary entry, or of several joined, one for each character. ValueError if one is outside the
    alphabet.
    """
    return token.translate(_TRANSLATION).encode("latin-1")
