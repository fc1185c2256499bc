from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, pre_tokenizers

from distilgpt2_api.core.errors import InvalidRequestError, ModelFormatError
from distilgpt2_api.text.tokenization.tokenizer import GROUP_CHARACTERS, Tokenizer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=TEXTS)
def test_any_text_is_decoded_unchanged(tokenizer: Tokenizer, text: str) -> None:
    """Byte for byte, for any characters."""
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "text", ["", "\0", "a\0b", "\ufeffking", "e\u0301", "\r\n\r\n  \t", "👩‍👩‍👧", "\U0010ffff", "\x80\x9f"]
)
def test_awkward_text_is_decoded_unchanged(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_merges_are_used(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("the king walked")) <= 5


def test_a_special_token_written_in_the_text_becomes_its_id_and_nothing_is_added(tokenizer: Tokenizer) -> None:
    end = tokenizer.token_id("<|endoftext|>")
    assert end is not None
    token_ids = tokenizer.encode("king<|endoftext|>king")
    assert token_ids == [*tokenizer.encode("king"), end, *tokenizer.encode("king")]
    assert tokenizer.decode(token_ids) == "king<|endoftext|>king"
    assert tokenizer.special_token_ids == {end}
    assert tokenizer.token_bytes[end] == b"<|endoftext|>"


def test_a_batch_is_encoded_as_each_of_its_texts(tokenizer: Tokenizer) -> None:
    texts = ["", "the king", "東京<|endoftext|>", "walked with him"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []


@pytest.mark.parametrize(("text", "surrogate"), [("ab\ud800", "U[+]D800 at character 2"), ("\udfff", "U[+]DFFF")])
def test_a_lone_surrogate_is_refused(tokenizer: Tokenizer, text: str, surrogate: str) -> None:
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch(["fine", text])):
        with pytest.raises(InvalidRequestError, match=surrogate) as caught:
            encode(text)
        assert caught.value.param == "prompt"


def test_a_byte_without_a_token_is_refused_instead_of_dropped() -> None:
    """A vocabulary trained without the whole alphabet would silently lose characters."""
    model = models.BPE(vocab={"a": 0, "b": 1}, merges=[])
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Tokenizer(library)
    assert tokenizer.encode("abba") == [0, 1, 1, 0]
    with pytest.raises(InvalidRequestError, match="no token for byte 0x63"):
        tokenizer.encode("abc")


def test_every_byte_has_a_token(tokenizer: Tokenizer) -> None:
    assert {token for token in tokenizer.token_bytes if len(token) == 1} == {bytes([byte]) for byte in range(256)}


def test_half_a_character_is_decoded_as_a_replacement(tokenizer: Tokenizer) -> None:
    half = tokenizer.token_bytes.index(b"\xe6")
    assert tokenizer.decode([half]) == "\ufffd"
    assert tokenizer.token_text(half) == "bytes:\\xe6"


def test_a_token_of_whole_characters_is_listed_as_they_are(tokenizer: Tokenizer) -> None:
    token_id = tokenizer.token_id("Ġking")
    assert token_id is not None
    assert tokenizer.token_text(token_id) == " king"
    assert tokenizer.token_id("no such token") is None


def test_tokens_beyond_the_vocabulary_have_no_text(tokenizer: Tokenizer) -> None:
    """A model with a padded vocabulary may sample them."""
    [first, *_] = tokenizer.encode("king")
    assert tokenizer.decode([tokenizer.vocab_size, first, tokenizer.vocab_size + 7]) == tokenizer.decode([first])


def library_with(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))


def test_ids_without_a_token_are_empty() -> None:
    tokenizer = Tokenizer(library_with({"a": 0, "b": 3}))
    assert tokenizer.vocab_size == 4
    assert tokenizer.token_bytes == (b"a", b"", b"", b"b")


def test_an_added_token_is_its_text_and_special_only_if_declared() -> None:
    library = library_with({"a": 0})
    library.add_tokens([AddedToken("é東", special=False)])
    library.add_special_tokens([AddedToken("<|pad|>", special=True)])
    tokenizer = Tokenizer(library)
    assert tokenizer.token_bytes == (b"a", "é東".encode(), b"<|pad|>")
    assert tokenizer.special_token_ids == {2}


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ({}, "no tokens"),
        ({"a": 4_000_000_000}, "far larger"),
        ({"a": 0, "b": 0}, "same id"),
        ({"東": 0}, "not in the byte-level alphabet"),
    ],
)
def test_an_invalid_vocabulary_is_refused(vocabulary: dict[str, int], message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        Tokenizer(library_with(vocabulary))


class Recorder:
    """The library's tokenizer; records how much it gets at once."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.sizes.append(sum(map(len, texts)))
        return self._tokenizer.encode_batch_fast(texts, **options)


@pytest.mark.reported("an attack with twenty long texts at once, which took two gigabytes")
def test_long_texts_are_given_to_the_library_in_bounded_groups(json_folder: Path) -> None:
    """The tokens are the same as for the whole text."""
    library: Any = Recorder(tokenizers.Tokenizer.from_file(str(json_folder / "tokenizer.json")))
    tokenizer = Tokenizer(library)
    texts = ["the king\n" * 20_000, "", "ships " * 30_000, *["a short one"] * 5_000]
    expected = [encoding.ids for encoding in library._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    assert tokenizer.encode_batch(texts) == expected
    assert max(library.sizes) <= GROUP_CHARACTERS < sum(map(len, texts))


def test_an_unbroken_text_is_tokenized_whole_or_refused(tokenizer: Tokenizer) -> None:
    text = "a" * (GROUP_CHARACTERS + 1)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_batch([text], max_unbroken_bytes=len(text)) == [tokenizer.encode(text)]
    with pytest.raises(InvalidRequestError, match=f"prompt has {len(text)} bytes .* at most 1000 are"):
        tokenizer.encode_batch([text], max_unbroken_bytes=1000)
