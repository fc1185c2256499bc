from __future__ import annotations

import pytest
from tokenizers import pre_tokenizers

from distilgpt2_api.text.tokenization.byte_level import BYTE_OF_CHARACTER, to_bytes


def test_the_alphabet_has_a_character_for_every_byte() -> None:
    assert sorted(BYTE_OF_CHARACTER.values()) == list(range(256))
    assert set(BYTE_OF_CHARACTER) == set(pre_tokenizers.ByteLevel.alphabet())


def test_the_characters_are_those_of_gpt2() -> None:
    assert to_bytes("ĠkingĊ") == b" king\n"
    assert to_bytes("Ã©") == "é".encode()


@pytest.mark.parametrize("character", ["東", " ", "\n", "\x7f", "\xa0", "\xad", "\0", "\u0144", "\ud800"])
def test_other_characters_are_not_in_the_alphabet(character: str) -> None:
    assert character not in BYTE_OF_CHARACTER
    with pytest.raises(ValueError, match="latin-1"):
        to_bytes("a" + character)
