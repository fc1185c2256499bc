"""The base of the writers of completions and chat completions: the fields around the choices, and the usage."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from operator import itemgetter

import orjson
from pydantic import Field

from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.generation import PromptDeltas
from distilgpt2_api.server.generation.timings import timings_of
from distilgpt2_api.server.schema.deferred_model import DeferredModel
from distilgpt2_api.server.schema.sampling import SamplingFields
from distilgpt2_api.server.service import Service

DONE = b"data: [DONE]\n\n"
"""Ends a stream that has not failed."""


class PromptTokensDetails(DeferredModel):
    cached_tokens: int


class AnswerFields(DeferredModel):
    """The fields of each answer and each chunk."""

    id: str
    created: int = Field(description="Unix time, in seconds.")
    model: str
    system_fingerprint: str = Field(description="Changes with the code, model, precision or kernels.")


class Usage(DeferredModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class OpenAiWriter(ABC):
    """Mutable: one request's answer. Streamed or whole, each field of a choice has the same content."""

    def __init__(
        self,
        request: SamplingFields,
        service: Service,
        record: RequestRecord,
        *,
        answer_id: str,
        kind: str,
        chunk_kind: str,
        num_prompt_tokens: int,
    ) -> None:
        """`kind`, `chunk_kind`: the `object` of a whole answer and of a chunk."""
        fields: dict[str, object] = {
            "id": answer_id,
            "object": kind,
            "created": int(service.clock()),
            "model": service.model.shown_name,
            "system_fingerprint": service.system_fingerprint,
        }
        self._body_head = orjson.dumps(fields)[:-1] + b',"choices":'
        self.chunk_head = b"data: " + orjson.dumps(fields | {"object": chunk_kind})[:-1] + b',"choices":['
        self._has_usage_chunk = request.has_usage_chunk
        self._has_usage_in_chunks = request.has_usage_in_chunks
        # If a usage chunk follows, the specification wants `usage: null` in all the others.
        self._plain_tail = b'],"usage":null}\n\n' if request.has_usage_chunk else b"]}\n\n"
        self._record = record if request.timings else None
        self._num_prompt_tokens = num_prompt_tokens
        self._num_completion_tokens: dict[tuple[int, int], int] = {}
        self._num_cached_tokens: dict[int, int] = {}
        self._bodies: list[dict[str, object]] = []

    @abstractmethod
    def add_chunks(self, prompt_index: int, delta: SequenceDelta, pieces: list[bytes]) -> None:
        """Append a delta's chunks to the pieces of an update, if there is something to show."""

    @abstractmethod
    def choices(self, prompt_index: int, deltas: Sequence[SequenceDelta]) -> Iterable[dict[str, object]]:
        """The whole choices, from the only delta of each of their sequences."""

    def events(self, update: Iterable[PromptDeltas]) -> bytes:
        """The events of one update, to be written at once."""
        pieces: list[bytes] = []
        for prompt_index, deltas in update:
            for delta in deltas:
                if self._has_usage_in_chunks or delta.finish_reason is not None:
                    self._count(prompt_index, delta)
                self.add_chunks(prompt_index, delta, pieces)
        return b"".join(pieces)

    def collect(self, update: Iterable[PromptDeltas]) -> None:
        """Add one update to the whole."""
        for prompt_index, deltas in update:
            for delta in deltas:
                self._count(prompt_index, delta)
            self._bodies += self.choices(prompt_index, deltas)

    def _count(self, prompt_index: int, delta: SequenceDelta) -> None:
        """Take a sequence's token counts. A prompt counts once, however many completions it gets."""
        self._num_completion_tokens[prompt_index, delta.index] = delta.num_completion_tokens
        if delta.index == 0:  # the other sequences find the prompt's blocks in the cache, where this one left them
            self._num_cached_tokens[prompt_index] = delta.num_cached_tokens

    @property
    def chunk_tail(self) -> bytes:
        return self._usage_tail() if self._has_usage_in_chunks else self._plain_tail

    def last_events(self) -> bytes:
        """A chunk of usage and timings, if the request asks for either, and the end of the stream."""
        if not self._has_usage_chunk and self._record is None:
            return DONE
        usage = b',"usage":' + self._usage() if self._has_usage_chunk else b""
        return self.chunk_head + b"]" + usage + self._timings() + b"}\n\n" + DONE

    def body(self) -> bytes:
        choices = sorted(self._bodies, key=itemgetter("index"))
        return self._body_head + orjson.dumps(choices) + b',"usage":' + self._usage() + self._timings() + b"}"

    def _timings(self) -> bytes:
        return b"" if self._record is None else b',"timings":' + orjson.dumps(timings_of(self._record))

    def _usage_tail(self) -> bytes:
        return b'],"usage":' + self._usage() + b"}\n\n"

    def _usage(self) -> bytes:
        num_completion_tokens = sum(self._num_completion_tokens.values())
        return orjson.dumps(
            {
                "prompt_tokens": self._num_prompt_tokens,
                "completion_tokens": num_completion_tokens,
                "total_tokens": self._num_prompt_tokens + num_completion_tokens,
                "prompt_tokens_details": {"cached_tokens": sum(self._num_cached_tokens.values())},
            }
        )
