from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from distilgpt2_api.text.detokenization.detokenizer import IncrementalDetokenizer

EVERY_BYTE = tuple(bytes([byte]) for byte in range(256))
# Bytes that begin, continue and break characters, whole ones, and nothing.
PIECES = st.sampled_from(
    [
        *(
            b"",
            b"a",
            b"\x80",
            b"\xbf",
            b"\xc3",
            b"\xc0",
            b"\xe6\x9d",
            b"\xe6",
            b"\x9d\xb1",
            b"\xf0\x9f",
            b"\x8e",
            b"\x89",
        ),
        *(b"\xf0", b"\xff", b"\xed\xa0", b"\xf4\x90", "é東🎉".encode(), b"\xed", b"\xa0"),
    ]
)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(pieces=st.lists(st.one_of(PIECES, st.binary(max_size=5))))
def test_pieces_decode_to_the_same_text_as_the_whole(pieces: list[bytes]) -> None:
    """Even if the bytes are not UTF-8: with the same replacement characters at the same positions."""
    detokenizer = IncrementalDetokenizer(pieces)
    text = "".join([detokenizer.push(index) for index in range(len(pieces))]) + detokenizer.flush()
    assert text == b"".join(pieces).decode(errors="replace")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_a_character_is_returned_with_its_last_byte(text: str) -> None:
    detokenizer = IncrementalDetokenizer(EVERY_BYTE)
    for character in text:
        *first, last = character.encode()
        assert [detokenizer.push(byte) for byte in first] == [""] * len(first)
        assert detokenizer.push(last) == character
    assert detokenizer.flush() == ""


def test_half_a_character_at_the_end_is_a_replacement() -> None:
    detokenizer = IncrementalDetokenizer(EVERY_BYTE)
    assert [detokenizer.push(byte) for byte in b"a\xf0\x9f\x8e"] == ["a", "", "", ""]
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.flush() == ""


def test_an_id_past_the_vocabulary_has_no_text() -> None:
    """A model padded to a round number of columns may sample one; it must not break the stream."""
    detokenizer = IncrementalDetokenizer((b"\xc3", b"\xa9"))
    assert [detokenizer.push(token_id) for token_id in (0, 2, 1)] == ["", "", "é"]
