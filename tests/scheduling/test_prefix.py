from __future__ import annotations

from distilgpt2_api.core.config import BLOCK_SIZE
from distilgpt2_api.scheduling.blocks import block_digest

TOKENS = list(range(BLOCK_SIZE))


def test_equal_contents_have_equal_digests() -> None:
    assert block_digest(b"", TOKENS) == block_digest(b"", tuple(TOKENS))


def test_a_digest_depends_on_every_token_of_the_block_and_on_their_order() -> None:
    others = [[*TOKENS[:-1], 99], [99, *TOKENS[1:]], TOKENS[::-1]]
    assert len({block_digest(b"", tokens) for tokens in [TOKENS, *others]}) == 4


def test_a_digest_depends_on_all_tokens_before() -> None:
    """The same 32 tokens after another prefix have other keys and values."""
    first, other = block_digest(b"", TOKENS), block_digest(b"", TOKENS[::-1])
    assert len({block_digest(parent, TOKENS) for parent in (b"", first, other)}) == 3
