"""Finds the token sequences in which DRY's sequence breakers occur."""

from collections.abc import Sequence

from distilgpt2_api.text.tokenization.tokenizer import Tokenizer


def find_breakers(texts: Sequence[str], tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """Sequences of token ids; each ends where a breaker does.

    They are a breaker's own tokens, every token that contains a breaker, and every token that ends with the beginning
    of one, followed by the rest's tokens, as in llama.cpp. Raises InvalidRequestError for a text that is not Unicode.
    """
    vocabulary = tokenizer.vocabulary_bytes
    breakers: dict[tuple[int, ...], None] = {}
    for text in texts:
        breakers[tuple(tokenizer.encode(text))] = None
        breakers |= dict.fromkeys((token_id,) for token_id in vocabulary.containing(text.encode()))
        for cut in range(1, len(text)):
            if heads := vocabulary.ending_with(text[:cut].encode()):
                rest = tokenizer.encode(text[cut:])
                breakers |= dict.fromkeys((head, *rest) for head in heads)
    return list(breakers)
