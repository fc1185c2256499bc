"""Names for the contents of full blocks, so that equal beginnings of prompts share their keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct

from distilgpt2_api.core.config import BLOCK_SIZE

_pack_block = Struct(f"<{BLOCK_SIZE}I").pack


def block_digest(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """256-bit name of a full block: its `BLOCK_SIZE` tokens and, by `parent`'s digest, all tokens before it.

    `parent` is b"" for a sequence's first block. A cryptographic hash, for a prompt made to collide with somebody
    else's would be answered from their keys and values.
    """
    return blake2b(parent + _pack_block(*token_ids), digest_size=32).digest()
