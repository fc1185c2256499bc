"""Digests of full blocks, by which prompts with a common prefix share keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct

from distilgpt2_api.core.config import BLOCK_SIZE

_pack_block = Struct(f"<{BLOCK_SIZE}I").pack


def block_digest(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """256-bit digest of a full block: of its `BLOCK_SIZE` tokens and, through `parent`, of all tokens before them.

    `parent` is the digest of the block before, b"" for a sequence's first block. The hash is cryptographic: otherwise
    an attacker could make a prompt that collides with another caller's and read from that caller's keys and values.
    """
    return blake2b(parent + _pack_block(*token_ids), digest_size=32).digest()
