"""Bitmasks of the tokens that a grammar allows, applied to logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ban_outside(logits: NDArray[np.float32], mask: bytes) -> None:
    """Set to -inf the `logits` (V,) of tokens whose bit in `mask` is 0, or which it has no bits for.

    See `TokenMask` for the order of the bits. 12 µs for GPT-2's vocabulary: a look-up for every byte and a minimum take
    a quarter of what unpacking the bits and writing under them takes, and as long whatever the bits are.
    """
    limits = _LIMITS.take(np.frombuffer(mask, dtype=np.uint8)).view(np.float32)
    num_covered = min(len(limits), len(logits))
    np.minimum(logits[:num_covered], limits[:num_covered], out=logits[:num_covered])
    logits[num_covered:] = -np.inf


def _tabulate_limits() -> NDArray[np.void]:
    """For every byte of a mask what its 8 tokens' logits are limited to, infinity or -inf, as one item (256,)."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")  # (256, 8)
    limits = np.where(bits == 1, np.float32(np.inf), np.float32(-np.inf))
    return limits.view(np.dtype((np.void, limits.itemsize * 8))).reshape(-1)


_LIMITS = _tabulate_limits()
