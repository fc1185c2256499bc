"""Keeps the sequences that have grammars to them: masks are computed while the kernels run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from distilgpt2_api.core.errors import Distilgpt2ApiError, GenerationError
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.plan import PlanRow, RowResult
from distilgpt2_api.text.grammars import GrammarCompiler, Guide

NOTHING_FINISHED: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class StepMask:
    """`TokenMask` of one row: all masks of a step are one piece of work."""

    masks: Future[list[bytes | Distilgpt2ApiError]]
    index: int

    def wait(self) -> bytes:
        mask = self.masks.result()[self.index]
        if isinstance(mask, bytes):
            return mask
        raise GenerationError(str(mask)) from mask


class GrammarState:
    """Owns the guides of the sequences in flight, and the thread that computes masks. Engine thread only."""

    def __init__(self, grammars: GrammarCompiler, *, eos_token_ids: Sequence[int]) -> None:
        self._grammars = grammars
        self._eos_token_ids = eos_token_ids
        self._guides: dict[int, Guide] = {}
        self._ignoring_eos: set[int] = set()
        """Those that ignore the end of text: they end where their grammars allow nothing more."""
        self._filling: Future[list[bytes | Distilgpt2ApiError]] | None = None
        self._thread: ThreadPoolExecutor | None = None
        """Started with the first guide."""

    def open(self, sequence_id: int, params: SamplingParams) -> None:
        """A guide for a new sequence, if it has a grammar."""
        if params.grammar is not None:
            self._guides[sequence_id] = self._grammars.open(params.grammar)
            if params.ignore_eos:
                self._ignoring_eos.add(sequence_id)

    def forget(self, sequence_id: int) -> None:
        """The sequence has ended."""
        self._guides.pop(sequence_id, None)
        self._ignoring_eos.discard(sequence_id)

    def begin_masks(self, rows: Iterable[PlanRow]) -> None:
        """Give the rows that draw by a grammar their masks, which are computed from now on."""
        if not self._guides:
            return
        guided = [row for row in rows if row.is_sampling and row.sequence_id in self._guides]
        if not guided:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="masks")
        work = [(self._guides[row.sequence_id], row.sequence_id in self._ignoring_eos) for row in guided]
        self._filling = self._thread.submit(self._fill, work)
        for index, row in enumerate(guided):
            row.mask = StepMask(self._filling, index)

    def accept(self, rows: Iterable[PlanRow], results: Iterable[RowResult]) -> frozenset[int]:
        """Let the guides follow what was drawn; the sequences whose grammars are complete now.

        The result of a sequence that can't be guided any further becomes an error.
        """
        if self._filling is None:
            return NOTHING_FINISHED
        self._filling.exception()  # What drew may not have waited for it; guides are one thread's at a time.
        self._filling = None
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
        """End thread and process. Idempotent."""
        if self._thread is not None:
            self._thread.shutdown()
        self._grammars.close()

    def _fill(self, work: Sequence[tuple[Guide, bool]]) -> list[bytes | Distilgpt2ApiError]:
        """On the masks' own thread."""
        masks: list[bytes | Distilgpt2ApiError] = []
        for guide, is_eos_ignored in work:
            try:
                mask = guide.fill_mask()
            except Distilgpt2ApiError as error:
                masks.append(error)
            else:
                masks.append(self._without_eos(mask) if is_eos_ignored else mask)
        return masks

    def _without_eos(self, mask: bytes) -> bytes:
        """For a completion that is to go on as long as its grammar can; as it is where nothing else may follow."""
        bits = bytearray(mask)
        for token_id in self._eos_token_ids:
            bits[token_id // 8] &= ~(1 << token_id % 8)
        return bytes(bits) if any(bits) else mask
