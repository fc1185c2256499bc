"""The engine: each step schedules, runs, applies the results and collects output."""

import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Protocol

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.events import EngineObserver, StepStats
from distilgpt2_api.core.outputs import FinishReason, SequenceDelta
from distilgpt2_api.core.plan import StepPlan, StepResult
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.core.seeds import sequence_seed
from distilgpt2_api.engine.grammar_state import GrammarState
from distilgpt2_api.engine.output_processor import OutputProcessor
from distilgpt2_api.scheduling.scheduler import Scheduler
from distilgpt2_api.scheduling.sequence import Sequence, SequenceUpdate
from distilgpt2_api.text.structured_output.grammars import GrammarCompiler
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

DEADLINES_GC_THRESHOLD = 64
"""Number of deadlines of ended requests that are kept without a search for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutputs:
    """The output of one step."""

    deltas: dict[str, list[SequenceDelta]]
    """Maps request ids to the deltas of their sequences."""
    started: list[str]
    """Requests of which the step computed the first token. A request with several sequences can occur repeatedly."""

    def __bool__(self) -> bool:
        return bool(self.deltas or self.started)


class StepRunner(Protocol):
    """Computes a step: the runner of `model/`, or a fake."""

    @property
    def config(self) -> ModelConfig: ...

    def run(self, plan: StepPlan) -> StepResult: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class TokenCounts:
    """Mutable: token counts of one step; see `StepStats`."""

    num_sampled: int = 0
    num_accepted: int = 0
    num_itl_samples: int = 0
    num_same_step: int = 0


@dataclass(slots=True)
class LiveRequest:
    """Mutable: the sequences of one request that have not ended."""

    sequence_ids: set[int]
    deadline_s: float | None


class Engine:
    """Owns scheduler, runner, grammar state and output processor. One thread only. Only `step` blocks."""

    def __init__(
        self,
        *,
        runner: StepRunner,
        scheduler: Scheduler,
        tokenizer: Tokenizer,
        grammars: GrammarCompiler,
        observer: EngineObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tokenizer = tokenizer
        self.grammars = grammars
        self._runner = runner
        self._scheduler = scheduler
        self._outputs = OutputProcessor(
            token_bytes=tokenizer.token_bytes, plain_token_bytes=tokenizer.plain_token_bytes
        )
        self._grammar_state = GrammarState(grammars, eos_token_ids=runner.config.eos_token_ids)
        self._observer = observer
        self._clock = clock
        self._requests: dict[str, LiveRequest] = {}
        self._deadlines: list[tuple[float, str]] = []
        """A heap of deadlines and request ids. Those of ended requests are removed when they expire, or when they are
        the majority."""
        self._next_sequence_id = 0
        self._last_step_s: float | None = None
        """When the last step ended."""

    @property
    def config(self) -> ModelConfig:
        return self._runner.config

    @property
    def max_num_sequences(self) -> int:
        return self._scheduler.max_num_sequences

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    @property
    def num_free_blocks(self) -> int:
        return self._scheduler.num_free_blocks

    def add(
        self,
        request: GenerationRequest,
        *,
        submitted_s: float,
        caller: str = "",
        is_continuation: bool = False,
        is_batch: bool = False,
    ) -> None:
        """Queue every sequence of a request that has passed `validate_request`."""
        sequence_ids: set[int] = set()
        leader_id: int | None = None
        for index in range(request.num_sequences):
            sequence = Sequence(
                sequence_id=self._next_sequence_id,
                prompt_token_ids=request.prompt_token_ids,
                params=request.params,
                seed=sequence_seed(request.params.seed, index),
                num_positions=self.config.num_positions,
                eos_token_ids=self.config.eos_token_ids,
                leader_id=leader_id,
                priority=request.priority,
                caller=caller,
                is_batch=is_batch,
            )
            self._next_sequence_id += 1
            self._scheduler.add(sequence, is_continuation=is_continuation)
            if leader_id is None:
                leader_id = sequence.sequence_id
            sequence_ids.add(sequence.sequence_id)
            self._grammar_state.open(sequence.sequence_id, request.params)
            self._outputs.add(request, sequence, index=index, submitted_s=submitted_s)
        deadline_s = None if request.deadline_s is None or is_batch else submitted_s + request.deadline_s
        self._requests[request.request_id] = LiveRequest(sequence_ids=sequence_ids, deadline_s=deadline_s)
        if deadline_s is not None:
            if len(self._deadlines) >= 2 * len(self._requests) + DEADLINES_GC_THRESHOLD:
                self._deadlines = [entry for entry in self._deadlines if self._is_live(*entry)]
                heapify(self._deadlines)
            heappush(self._deadlines, (deadline_s, request.request_id))

    def abort(self, request_id: str) -> list[SequenceDelta]:
        """End the remaining sequences of a request and free their blocks. Idempotent. Returns their last deltas."""
        live = self._requests.get(request_id)
        if live is None:
            return []
        deltas = []
        for sequence_id in sorted(live.sequence_ids):
            self._scheduler.finish(sequence_id, FinishReason.ABORT)
            deltas.append(self._finish(sequence_id, self._clock()))
        return deltas

    def step(self) -> StepOutputs:
        deltas = self._abort_overdue()
        scheduler = self._scheduler
        plan = scheduler.schedule()
        if plan is None:
            scheduler.check_idle()
            return StepOutputs(deltas=deltas, started=[])
        started_s = self._clock()
        started = self._outputs.mark_started(plan.rows, started_s)
        self._grammar_state.begin_masks(plan.rows)
        result = self._runner.run(plan)
        complete = self._grammar_state.accept(plan.rows, result.rows)
        updates: Iterable[SequenceUpdate] = scheduler.update(plan, result)
        if plan.num_draft_tokens:
            updates = self._with_accepted_drafts(updates)
        now_s = self._clock()
        counts = self._collect(updates, complete, now_s, into=deltas)
        self._observer.on_step(
            StepStats(
                schedule=scheduler.take_stats(plan),
                duration_s=now_s - started_s,
                num_sampled_tokens=counts.num_sampled,
                num_accepted_tokens=counts.num_accepted,
                num_itl_samples=counts.num_itl_samples,
                num_same_step_tokens=counts.num_same_step,
                inter_step_s=now_s - (started_s if self._last_step_s is None else self._last_step_s),
            )
        )
        self._last_step_s = now_s
        return StepOutputs(deltas=deltas, started=started)

    def close(self) -> None:
        self._runner.close()
        self._grammar_state.close()

    def _collect(
        self,
        updates: Iterable[SequenceUpdate],
        complete: AbstractSet[int],
        now_s: float,
        *,
        into: dict[str, list[SequenceDelta]],
    ) -> TokenCounts:
        """`complete`: sequences whose grammars allow no further token."""
        counts = TokenCounts()
        for update in updates:
            sequence = update.sequence
            output = self._outputs.of(sequence.sequence_id)
            if update.token_id is not None:
                has_itl = output.first_token_s is not None and not sequence.is_batch
                counts.num_sampled += 1
                counts.num_accepted += update.is_from_draft
                counts.num_itl_samples += has_itl
                counts.num_same_step += has_itl and update.is_from_draft
            stop = output.accept(update, now_s)
            is_over = stop is not None or sequence.sequence_id in complete
            if is_over and sequence.finish_reason in (None, FinishReason.LENGTH):
                self._scheduler.finish(sequence.sequence_id, FinishReason.STOP)
                sequence.finish_reason = FinishReason.STOP
            if sequence.finish_reason is not None:
                into.setdefault(output.request_id, []).append(self._finish(sequence.sequence_id, now_s, stop=stop))
            elif (delta := output.take(now_s)) is not None:
                into.setdefault(output.request_id, []).append(delta)
        return counts

    def _with_accepted_drafts(self, updates: Iterable[SequenceUpdate]) -> Iterator[SequenceUpdate]:
        """Each update, followed by those of its accepted drafts until the sequence ends."""
        for update in updates:
            yield update
            yield from self._scheduler.apply_accepted_drafts(update)

    def _finish(self, sequence_id: int, now_s: float, *, stop: str | None = None) -> SequenceDelta:
        output = self._outputs.forget(sequence_id)
        self._grammar_state.forget(sequence_id)
        delta = output.take(now_s, stop=stop)
        assert delta is not None
        live = self._requests[output.request_id]
        live.sequence_ids.discard(sequence_id)
        if not live.sequence_ids:
            del self._requests[output.request_id]
        self._observer.on_sequence_finished(delta, is_batch=output.sequence.is_batch)
        return delta

    def _abort_overdue(self) -> dict[str, list[SequenceDelta]]:
        if not self._deadlines:
            return {}
        now_s = self._clock()
        overdue: dict[str, list[SequenceDelta]] = {}
        while self._deadlines and self._deadlines[0][0] <= now_s:
            deadline_s, request_id = heappop(self._deadlines)
            if self._is_live(deadline_s, request_id):
                overdue[request_id] = self.abort(request_id)
        return overdue

    def _is_live(self, deadline_s: float, request_id: str) -> bool:
        """Whether the request has not ended. The deadline is compared because ids can be used again."""
        live = self._requests.get(request_id)
        return live is not None and live.deadline_s == deadline_s
