"""DRY's sequence breakers as tokens: a breaker is found however the text before it and after it is tokenized."""

from __future__ import annotations

from pathlib import Path

import pytest

import distilgpt2_api
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.model.sampling.repetition import SequenceBreakers
from distilgpt2_api.text.tokenization.sequence_breakers import find_breakers
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

DEMO_MODEL = Path(distilgpt2_api.__file__).parent / "models" / "storyteller"
TEXTS = ("", "the king ", "said", " to them ", "!!", "\n\n", "a *b", "He ", "é", " a long way off, ")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(DEMO_MODEL)


def test_tokens_that_contain_a_breaker_are_breakers(tokenizer: Tokenizer) -> None:
    texts = SamplingParams().dry_sequence_breakers
    expected = {
        (token_id,)
        for token_id, token in enumerate(tokenizer.token_bytes)
        if any(text.encode() in token for text in texts)
    }
    assert len(expected) > 4
    assert set(find_breakers(texts, tokenizer)) == expected


@pytest.mark.parametrize("breaker", ["\n", '"', "king", " the", "said to", "é*", "!!\n", "zqx zqx"])
def test_a_breaker_is_found_between_any_texts(tokenizer: Tokenizer, breaker: str) -> None:
    """No token before its end counts as behind it."""
    breakers = SequenceBreakers(find_breakers([breaker], tokenizer))
    for before in TEXTS:
        for after in TEXTS:
            token_ids = tokenizer.encode(before) + tokenizer.encode(breaker) + tokenizer.encode(after)
            text = before + breaker + after
            end = text.rindex(breaker) + len(breaker)
            num_after = breakers.num_tokens_after(token_ids)
            rest = tokenizer.decode(token_ids[len(token_ids) - num_after :])
            assert len(rest) <= len(text) - end, (before, after)
            assert num_after <= len(tokenizer.encode(after)), (before, after)


def test_a_text_without_a_breaker_has_none(tokenizer: Tokenizer) -> None:
    breakers = SequenceBreakers(find_breakers(["\n", "zqx"], tokenizer))
    token_ids = tokenizer.encode("the king said to them: a long way off")
    assert breakers.num_tokens_after(token_ids) == len(token_ids)
    assert breakers.num_tokens_after([]) == 0


def test_a_text_that_is_not_unicode_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequestError, match="lone surrogate"):
        find_breakers(["\ud800"], tokenizer)
