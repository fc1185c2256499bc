"""Whether a model fits the memory, asked before any of it is taken; and how it is said where it turns out not to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distilgpt2_api.core.config import ModelConfig, Precision
from distilgpt2_api.core.errors import ModelMemoryError, UnsupportedModelError
from distilgpt2_api.core.model_files import safe_name
from distilgpt2_api.model.architectures.registry import count_weights
from distilgpt2_api.model.kernels.options import kv_block_bytes

MIB = 1 << 20
SIGNS_OF_EXHAUSTION = ("bad_alloc", "allocate memory", "temporarily unavailable", "failed to map segment")
"""What the kernels' library says of memory, and of threads whose stacks find none."""


def check_memory(
    folder: Path, config: ModelConfig, precision: Precision, *, num_blocks: int, min_blocks: int, limit_bytes: int
) -> None:
    """Raises ModelMemoryError if weights and KV cache alone are more than `limit_bytes`.

    `min_blocks`: those of one context, which no setting makes fewer.
    """
    weights_bytes = count_weights(config) * (1 if precision is Precision.INT8 else 4)
    cache_bytes = num_blocks * kv_block_bytes(config, precision)
    if weights_bytes + cache_bytes <= limit_bytes:
        return
    way_out = (
        "lower DISTILGPT2_KV_CACHE_BYTES"
        if num_blocks > min_blocks
        else f"that is for one context, {config.num_positions} tokens by its config.json"
    )
    raise ModelMemoryError(
        f"{folder}: weights of {weights_bytes // MIB} MiB and a KV cache of {cache_bytes // MIB} MiB don't fit into "
        f"{limit_bytes // MIB} MiB of memory; {way_out}"
    )


@contextmanager
def kernel_errors_in_one_line(folder: Path) -> Iterator[None]:
    """Raises ModelMemoryError where memory ends, UnsupportedModelError where the kernels can't be made otherwise."""
    try:
        yield
    except MemoryError:
        raise ModelMemoryError(f"{folder}: the memory does not suffice to load the model") from None
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or ["no reason given"]
        if any(sign in str(error) for sign in SIGNS_OF_EXHAUSTION):
            raise ModelMemoryError(
                f"{folder}: the memory does not suffice to load the model: {safe_name(lines[-1])}"
            ) from None
        raise UnsupportedModelError(f"{folder}: the kernels can't be made for it: {safe_name(lines[-1])}") from error
