"""Runs models through `native/driver.cpp`: the kernels as a process of their own, natively or under emulation.

Weights come in checkpoints' names and shapes and are packed here as `native/model.h` says.
"""

from __future__ import annotations

import contextlib
import math
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

PANEL, BLOCK = 32, 32
PRECISIONS = {"int8": 0, "bf16": 1, "f32": 2}
ACTIVATIONS = {"gelu_new": 0, "gelu": 1, "relu": 2, "silu": 3, "tanh": 4}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sequence's part of a step."""

    token_ids: Sequence[int]
    begin: int
    """Position of the first of them: how many tokens are in the cache."""
    block_ids: Sequence[int]


DRAW = np.dtype(
    [
        ("top_n_sigma", np.float64),
        ("temperature", np.float64),
        ("dynatemp_range", np.float64),
        ("dynatemp_exponent", np.float64),
        ("typical_p", np.float64),
        ("top_k", np.int32),
        ("num_top", np.int32),
        ("top_p", np.float64),
        ("min_p", np.float64),
        ("xtc_probability", np.float64),
        ("xtc_threshold", np.float64),
        ("largest_surprisal", np.float64),
        ("seed", np.uint64),
        ("position", np.int32),
        ("given", np.int32),
        ("sequence", np.int32),
        ("token", np.int32),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Results of N draws."""

    token_ids: NDArray[np.int32]
    largest: NDArray[np.float32]
    surprisals: NDArray[np.float64]
    logprobs: NDArray[np.float64]
    top_ids: NDArray[np.int32]
    top_logprobs: NDArray[np.float64]


def _max_top(draws: NDArray[np.void]) -> int:
    return max(int(draws["num_top"].max(initial=0)), 0)


def _pack_draws(draws: NDArray[np.void], num_edited: int) -> bytes:
    return struct.pack("<iii", len(draws), num_edited, _max_top(draws)) + draws.tobytes()


class Driver:
    """One model in one process; `with` ends it."""

    def __init__(
        self,
        command: Sequence[str | Path],
        config: Mapping[str, Any],
        tensors: Mapping[str, NDArray[Any]],
        *,
        precision: str,
        target: str,
        num_threads: int,
        num_blocks: int,
    ) -> None:
        self._config = config
        self._process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        name = target.encode()
        weights = _Weights()
        model = _pack_model(weights, config, tensors, precision, num_blocks)
        content = weights.content()
        self._send(struct.pack(f"<i{len(name)}siq", len(name), name, num_threads, len(content)) + content + model)

    def step(self, rows: Sequence[Row], num_logits: int) -> NDArray[np.float32]:
        """Logits of the last `num_logits` tokens (N, V)."""
        num_tokens = sum(len(row.token_ids) for row in rows)
        draws = np.zeros(num_logits, DRAW)
        draws["token"] = np.arange(num_tokens - num_logits, num_tokens)
        return self.sample(rows, draws, num_edited=num_logits)[0]

    def sample(
        self, rows: Sequence[Row], draws: NDArray[np.void], *, num_edited: int = 0
    ) -> tuple[NDArray[np.float32], Drawn]:
        """Logits of the first `num_edited` draws (M, V), and the results of all."""
        ids = [token for row in rows for token in row.token_ids]
        positions = [row.begin + index for row in rows for index in range(len(row.token_ids))]
        begins = np.cumsum([0, *(len(row.token_ids) for row in rows)], dtype=np.int32)
        tables = [list(row.block_ids) for row in rows]
        block_begins = np.cumsum([0, *map(len, tables)], dtype=np.int32)
        block_ids = list(chain.from_iterable(tables))
        inputs = np.array([*ids, *positions, *begins, *block_begins, *block_ids], np.int32)
        sizes = struct.pack("<iii", len(ids), len(rows), len(block_ids))
        self._send(sizes + inputs.tobytes() + _pack_draws(draws, num_edited))
        logits = self._receive((num_edited, self._config["vocab_size"]), np.float32)
        return logits, self._receive_drawn(draws)

    def draw(self, draws: NDArray[np.void], logits: NDArray[np.float32], raw: NDArray[np.float32]) -> Drawn:
        """Draws from rows of `logits` (N, V); log-probabilities are of `raw` (N, V)."""
        self._send(struct.pack("<i", -1) + _pack_draws(draws, 0) + logits.tobytes() + raw.tobytes())
        return self._receive_drawn(draws)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is not None:
            return
        try:
            errors = self._process.communicate(struct.pack("<i", 0), timeout=60)[1].decode()
        finally:
            self._process.kill()
        assert self._process.returncode == 0, errors
        assert not errors

    def _send(self, content: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(content)
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()

    def _receive_drawn(self, draws: NDArray[np.void]) -> Drawn:
        shape = (len(draws), _max_top(draws))
        return Drawn(
            token_ids=self._receive((len(draws),), np.int32),
            largest=self._receive((len(draws),), np.float32),
            surprisals=self._receive((len(draws),), np.float64),
            logprobs=self._receive((len(draws),), np.float64),
            top_ids=self._receive(shape, np.int32),
            top_logprobs=self._receive(shape, np.float64),
        )

    def _receive(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        assert self._process.stdout is not None
        size = math.prod(shape) * np.dtype(dtype).itemsize
        content = self._process.stdout.read(size)
        if len(content) != size:
            self._fail()
        return np.frombuffer(content, dtype).reshape(shape)

    def _fail(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        errors = self._process.stderr.read()
        self._process.wait(timeout=60)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        raise RuntimeError(f"the driver ended with {self._process.returncode}: {errors.decode()}")


class _Weights:
    """One block of bytes, each array on a cache line of its own. Offsets are one more than they are: 0 is null."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, array: NDArray[Any]) -> int:
        content = np.ascontiguousarray(array).tobytes()
        content += bytes(-len(content) % 128)
        offset = self._size
        self._parts.append(content)
        self._size += len(content)
        return offset + 1

    def add_bytes(self, content: bytes) -> int:
        return self.add(np.frombuffer(content, np.uint8))

    def content(self) -> bytes:
        return b"".join(self._parts)


def quantize(matrix: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(out, in) → int8 and one scale for each row."""
    largest = np.abs(matrix).max(axis=1)
    scale = np.where(largest > 1e-30, largest / 127, 1).astype(np.float32)
    return np.rint(matrix / scale[:, None]).astype(np.int8), scale


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _pack_matrix(weights: _Weights, matrix: NDArray[Any], bias: NDArray[Any] | None, precision: str) -> bytes:
    num_columns, depth = matrix.shape
    padded = -(-num_columns // PANEL) * PANEL
    scale_at = 0
    if precision == "int8":
        quads = -(-depth // 4)
        values, scale = quantize(matrix)
        whole = np.full((padded, quads * 4), 128, np.uint8)
        whole[:num_columns, :depth] = (values.astype(np.int16) + 128).astype(np.uint8)
        panels: NDArray[Any] = whole.reshape(padded // PANEL, PANEL, quads, 4).transpose(0, 2, 1, 3)
        scale_at = weights.add(np.pad(scale, (0, padded - num_columns)))
    else:
        wide = np.zeros((padded, depth), np.float32)
        wide[:num_columns] = matrix
        panels = wide.reshape(padded // PANEL, PANEL, depth).transpose(0, 2, 1)
        if precision == "bf16":
            panels = to_bf16(panels)
    bias_at = 0 if bias is None else weights.add(np.pad(bias.astype(np.float32), (0, padded - num_columns)))
    return struct.pack("<QQQii", weights.add(panels), scale_at, bias_at, num_columns, depth)


def _pack_model(
    weights: _Weights, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], precision: str, num_blocks: int
) -> bytes:
    width, num_heads = config["n_embd"], config["n_head"]

    def norm(name: str) -> bytes:
        parts = (weights.add(tensors[f"{name}.{part}"].astype(np.float32)) for part in ("weight", "bias"))
        return struct.pack("<QQ", *parts)

    def linear(name: str) -> bytes:
        return _pack_matrix(weights, tensors[f"{name}.weight"].T, tensors[f"{name}.bias"], precision)

    layers = b""
    for layer in range(config["n_layer"]):
        name = f"h.{layer}"
        scale = 1 / math.sqrt(width // num_heads) if config.get("scale_attn_weights", True) else 1.0
        scale /= layer + 1 if config.get("scale_attn_by_inverse_layer_idx") else 1
        layers += norm(f"{name}.ln_1") + linear(f"{name}.attn.c_attn") + linear(f"{name}.attn.c_proj")
        layers += norm(f"{name}.ln_2") + linear(f"{name}.mlp.c_fc") + linear(f"{name}.mlp.c_proj")
        layers += struct.pack("<fi", scale, 0)
    embedding = _pack_matrix(weights, tensors["wte.weight"], None, precision)
    head = embedding
    if not config.get("tie_word_embeddings", True):
        head = _pack_matrix(weights, tensors["lm_head.weight"], None, precision)
    return (
        struct.pack(
            "<8ifi",
            PRECISIONS[precision],
            ACTIVATIONS[config.get("activation_function", "gelu_new")],
            config["n_layer"],
            num_heads,
            width // num_heads,
            width,
            config.get("n_inner") or 4 * width,
            config["vocab_size"],
            config.get("layer_norm_epsilon", 1e-5),
            num_blocks,
        )
        + struct.pack("<Q", weights.add_bytes(layers))
        + norm("ln_f")
        + embedding
        + head
        + struct.pack("<QQ", weights.add(tensors["wpe.weight"].astype(np.float32)), 0)
    )
