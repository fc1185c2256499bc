"""Deltas to OpenAI's `chat.completion` objects: one whole, or chunks."""

import uuid
from collections.abc import Iterable, Sequence

import orjson

from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.plan import GenerationPlan
from distilgpt2_api.server.generation.timings import LiveTimings, prompt_progress
from distilgpt2_api.server.generation.token_logprobs import token_with_top
from distilgpt2_api.server.http.responses.stream_formats import dump_line
from distilgpt2_api.server.protocols.openai.chat.schema import ChatCompletionRequest
from distilgpt2_api.server.protocols.openai.envelope import OpenAiWriter
from distilgpt2_api.server.service import Service

END = b"}\n\n"
FIRST_DELTA = b'{"role":"assistant","content":""}'


class ChatWriter(OpenAiWriter):
    def __init__(
        self, request: ChatCompletionRequest, plan: GenerationPlan, service: Service, record: RequestRecord
    ) -> None:
        super().__init__(
            request,
            service,
            record,
            answer_id=f"chatcmpl-{uuid.uuid4().hex}",
            kind="chat.completion",
            chunk_kind="chat.completion.chunk",
            num_prompt_tokens=plan.num_prompt_tokens,
        )
        self._num_logprobs = request.num_logprobs
        self._tokenizer = service.engine.tokenizer
        self._begun: set[int] = set()
        self._live = LiveTimings(record)
        self._has_progress, self._has_live_timings = request.return_progress, request.timings_per_token
        if request.timings_per_token:
            self._record = record

    def add_chunks(self, prompt_index: int, delta: SequenceDelta, pieces: list[bytes]) -> None:  # noqa: ARG002 - a chat has one prompt
        """A choice's first chunk has the role, its last one the finish reason, and those between its content."""
        if self._has_progress and not self._begun:
            progress = orjson.dumps(prompt_progress(self._live_timings()))
            pieces += (self.chunk_head, self.chunk_tail[: -len(END)], b',"prompt_progress":', progress, END)
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            self._add_chunk(delta.index, FIRST_DELTA, b"null", b"null}", pieces)
        # Without either, all is held back: half a character, or the possible beginning of a stop sequence.
        if delta.text or (delta.logprobs and self._num_logprobs is not None):
            content = b'{"content":' + dump_line(delta.text) + b"}"
            self._add_chunk(delta.index, content, dump_line(self._logprobs(delta.logprobs)), b"null}", pieces)
        if delta.finish_reason is not None:
            end = b'"%s","stop_reason":%s}' % (delta.finish_reason.value.encode(), dump_line(delta.stop))
            self._add_chunk(delta.index, b"{}", b"null", end, pieces)

    def _add_chunk(self, index: int, content: bytes, logprobs: bytes, end: bytes, pieces: list[bytes]) -> None:
        pieces += (self.chunk_head, b'{"index":%d,"delta":' % index, content, b',"logprobs":', logprobs)
        pieces += (b',"finish_reason":', end, self.chunk_tail)

    @property
    def chunk_tail(self) -> bytes:
        if not self._has_live_timings:
            return super().chunk_tail
        return super().chunk_tail[: -len(END)] + b',"timings":' + orjson.dumps(self._live_timings()) + END

    def _live_timings(self) -> dict[str, object]:
        return self._live.describe(
            num_prompt_tokens=self._num_prompt_tokens,
            num_cached_tokens=sum(self._num_cached_tokens.values()),
            num_completion_tokens=sum(self._num_completion_tokens.values()),
        )

    def choices(self, prompt_index: int, deltas: Sequence[SequenceDelta]) -> Iterable[dict[str, object]]:  # noqa: ARG002 - the same
        for delta in deltas:
            assert delta.finish_reason is not None
            yield {
                "index": delta.index,
                "message": {"role": "assistant", "content": delta.text, "refusal": None},
                "logprobs": self._logprobs(delta.logprobs),
                "finish_reason": delta.finish_reason.value,
                "stop_reason": delta.stop,
            }

    def _logprobs(self, logprobs: Iterable[TokenLogprobs]) -> dict[str, object] | None:
        num_top = self._num_logprobs
        if num_top is None:
            return None
        content = [token_with_top(token, self._tokenizer, num_top=num_top) for token in logprobs]
        return {"content": content, "refusal": None}
