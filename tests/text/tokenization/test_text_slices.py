"""A long text's slices have the tokens of the whole, or the tokenizer is not divisible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers, pre_tokenizers, processors

from distilgpt2_api.text.tokenization.text_slices import is_divisible, slice_text
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

PIECES = ["a", "The", "king", "'s", "'", "don't", "1", "42", "é", "日本", "。", "…", "!?", "\U0001f600", "\u0301"]
SPACES = [" ", "  ", "\n", "\n\n", "\t", "\r\n", "\x1c", "\u00a0", "\u2028"]
TEXTS = st.lists(st.sampled_from([*PIECES, *SPACES, "<|endoftext|>", "<|"]), max_size=40).map("".join)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(text=TEXTS, max_characters=st.integers(1, 12))
def test_slices_have_the_tokens_of_the_whole(tokenizer: Tokenizer, text: str, max_characters: int) -> None:
    assert tokenizer.is_divisible
    slices = list(slice_text(text, max_characters))
    assert "".join(slices) == text
    assert [token_id for one in slices for token_id in tokenizer.encode(one)] == tokenizer.encode(text)


def test_a_slice_is_longer_only_if_the_text_has_no_break() -> None:
    assert list(slice_text("ab cd ef", 5)) == ["ab cd", " ef"]
    assert list(slice_text("ab cd ef", 4)) == ["ab", " cd", " ef"]
    assert list(slice_text("abcdefgh ij k", 4)) == ["abcdefgh", " ij", " k"]
    assert list(slice_text("a" + " " * 9 + "b", 4)) == ["a", " " * 9 + "b"]
    assert list(slice_text("", 4)) == [""]


@pytest.mark.parametrize(
    "change",
    [
        lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.NFC()),
        lambda tokenizer: setattr(tokenizer, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda tokenizer: setattr(tokenizer, "pre_tokenizer", pre_tokenizers.ByteLevel(False, use_regex=False)),
        lambda tokenizer: setattr(tokenizer, "post_processor", processors.ByteLevel()),
        lambda tokenizer: tokenizer.add_special_tokens([AddedToken("<a b>", special=True)]),
        lambda tokenizer: tokenizer.add_special_tokens([AddedToken("<a>", special=True, rstrip=True)]),
    ],
)
def test_other_tokenizers_are_not_divisible(json_folder: Path, change: Callable[[tokenizers.Tokenizer], None]) -> None:
    library_tokenizer = tokenizers.Tokenizer.from_file(str(json_folder / "tokenizer.json"))
    assert is_divisible(library_tokenizer)
    change(library_tokenizer)
    assert not is_divisible(library_tokenizer)
