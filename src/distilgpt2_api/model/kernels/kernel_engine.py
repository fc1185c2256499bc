"""Calls of the native library: a step in one call, and draws from logits that were edited."""

import ctypes
import errno
import weakref

import numpy as np
from numpy.typing import NDArray

from distilgpt2_api.core.errors import ModelError
from distilgpt2_api.model.kernels.draws import DrawBatch
from distilgpt2_api.model.kernels.library import choose_target, load_library
from distilgpt2_api.model.kernels.structures import Model, Step
from distilgpt2_api.model.step_inputs import StepInputs


class KernelEngine:
    """The kernels of one model, and their threads. One thread at a time; calls release the GIL.

    A model without layers only draws.
    """

    def __init__(self, model: Model, *, num_threads: int, target: str = "") -> None:
        """The caller keeps the memory that `model` points to. `target`: an instruction set; empty: the best.

        Raises UnsupportedProcessorError, ModelError if the system refuses threads, and MemoryError.
        """
        self.target = choose_target(target)
        self.vocab_size: int = model.vocab_size
        self._library = load_library()
        self._logits_stride = self._library.engine_logits_stride(model)
        self._step = Step()
        self._no_logits = np.empty((0, model.vocab_size), np.float32)
        self._engine = self._library.engine_open(model, self.target.encode(), num_threads)
        if not self._engine:
            if ctypes.get_errno() == errno.EAGAIN:
                raise ModelError(
                    f"the system refuses {num_threads} threads: allow more processes (ulimit -u, the container's pids"
                    " limit), or lower DISTILGPT2_NUM_THREADS"
                )
            raise MemoryError
        self._close = weakref.finalize(self, self._library.engine_close, self._engine)
        self._close.atexit = False  # the engine thread, a daemon, may be in a step when the process exits

    def close(self) -> None:
        """Ends the threads. Idempotent; nothing may be computed after it."""
        self._close()

    def step(self, inputs: StepInputs, draws: DrawBatch) -> NDArray[np.float32]:
        """Computes the tokens, writes their keys and values, and draws.

        Returns the logits of the draws that are edited (N, V): a view, writable and valid until the next step.
        """
        step = self._step
        step.num_tokens = inputs.num_tokens
        step.num_sequences = inputs.num_sequences
        step.inputs, _ = inputs.values.buffer_info()
        step.draws = draws.address
        if self._library.engine_step(self._engine, step) != 0:
            raise MemoryError
        if not draws.num_edited:
            return self._no_logits
        shape = (draws.num_edited, self._logits_stride)
        memory = (ctypes.c_float * (shape[0] * shape[1])).from_address(step.logits)
        return np.frombuffer(memory, np.float32).reshape(shape)[:, : self.vocab_size]

    def draw(self, draws: DrawBatch, logits: NDArray[np.float32], raw: NDArray[np.float32]) -> None:
        """Draws from rows of `logits` (N, V). `raw` (N, V): the model's own, for log-probabilities."""
        assert logits.shape == raw.shape == (len(draws), self.vocab_size)
        result = self._library.engine_draw(
            self._engine,
            draws.address,
            logits.ctypes.data,
            _row_stride(logits),
            raw.ctypes.data,
            _row_stride(raw),
        )
        if result != 0:
            raise MemoryError


def _row_stride(rows: NDArray[np.float32]) -> int:
    """Floats between the beginnings of rows, whose columns must be contiguous."""
    assert rows.shape[1] <= 1 or rows.strides[1] == rows.itemsize
    return rows.strides[0] // rows.itemsize
