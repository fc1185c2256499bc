"""Applies grammars to the running sequences. Masks are computed while the kernels run."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from distilgpt2_api.core.errors import Distilgpt2ApiError, GenerationError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, RowResult
from distilgpt2_api.text.structured_output.grammars import GrammarCompiler, Guide

NONE_FINISHED: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class StepMask:
    """The `TokenMask` of one row. One task computes all masks of a step."""

    masks: Future[list[bytes | Distilgpt2ApiError]]
    index: int

    def wait(self) -> bytes:
        mask = self.masks.result()[self.index]
        if isinstance(mask, bytes):
            return mask
        raise GenerationError(str(mask)) from mask


class GrammarState:
    """Owns the guides of the sequences in flight and the thread that computes masks. Engine thread only."""

    def __init__(self, grammars: GrammarCompiler, *, eos_token_ids: Sequence[int]) -> None:
        self._grammars = grammars
        self._eos_token_ids = eos_token_ids
        self._guides: dict[int, Guide] = {}
        self._ignoring_eos: set[int] = set()
        """Sequences with `ignore_eos`: they end when their grammars allow no further token."""
        self._masks: Future[list[bytes | Distilgpt2ApiError]] | None = None
        self._thread: ThreadPoolExecutor | None = None
        """Created with the first guide."""

    def open(self, sequence_id: int, params: SamplingParams) -> None:
        """Open a guide for a new sequence, if it has a grammar."""
        if params.grammar is not None:
            self._guides[sequence_id] = self._grammars.open(params.grammar)
            if params.ignore_eos:
                self._ignoring_eos.add(sequence_id)

    def forget(self, sequence_id: int) -> None:
        self._guides.pop(sequence_id, None)
        self._ignoring_eos.discard(sequence_id)

    def begin_masks(self, rows: Iterable[PlanRow]) -> None:
        """Start to compute the masks of the rows that sample with a grammar."""
        if not self._guides:
            return
        guided = [row for row in rows if row.is_sampling and row.sequence_id in self._guides]
        if not guided:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="masks")
        work = [(self._guides[row.sequence_id], row.sequence_id in self._ignoring_eos) for row in guided]
        self._masks = self._thread.submit(self._compute_masks, work)
        for index, row in enumerate(guided):
            row.mask = StepMask(self._masks, index)

    def accept(self, rows: Iterable[PlanRow], results: Iterable[RowResult]) -> frozenset[int]:
        """Advance the guides by the sampled tokens. Returns the sequences whose grammars are now complete.

        If a guide fails, the result of its sequence becomes an error.
        """
        if self._masks is None:
            return NONE_FINISHED
        # The sampler may not have waited for the masks, and only one thread at a time may use a guide.
        self._masks.exception()
        self._masks = None
        finished = []
        for row, result in zip(rows, results, strict=True):
            if row.mask is None or result.token_id is None:
                continue
            guide = self._guides[row.sequence_id]
            try:
                row.mask.wait()
                guide.accept(result.token_id)
            except GenerationError as error:
                result.token_id, result.error = None, str(error)
            else:
                if guide.is_finished:
                    finished.append(row.sequence_id)
        return frozenset(finished)

    def close(self) -> None:
        """End the thread, and the compiler's process. Idempotent."""
        if self._thread is not None:
            self._thread.shutdown()
        self._grammars.close()

    def _compute_masks(self, work: Sequence[tuple[Guide, bool]]) -> list[bytes | Distilgpt2ApiError]:
        """Runs on the thread for masks."""
        masks: list[bytes | Distilgpt2ApiError] = []
        for guide, is_eos_ignored in work:
            try:
                mask = guide.compute_mask()
            except Distilgpt2ApiError as error:
                masks.append(error)
            else:
                masks.append(self._without_eos(mask) if is_eos_ignored else mask)
        return masks

    def _without_eos(self, mask: bytes) -> bytes:
        """The mask without the end of text, unless it allows nothing else."""
        bits = bytearray(mask)
        for token_id in self._eos_token_ids:
            bits[token_id // 8] &= ~(1 << token_id % 8)
        return bytes(bits) if any(bits) else mask
