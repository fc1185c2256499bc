"""Deltas to OpenAI's `chat.completion` objects: one whole, or chunks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter

import orjson

from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.core.plan import TokenLogprobs
from distilgpt2_api.engine.scoring import MIN_LOGPROB
from distilgpt2_api.server.generation.generation import PromptDeltas
from distilgpt2_api.server.http.stream_formats import dump_line
from distilgpt2_api.server.protocols.openai.envelope import DONE
from distilgpt2_api.text.tokenizer import Tokenizer

FIRST_DELTA = b'{"role":"assistant","content":""}'


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatShape:
    """What the answer is to contain."""

    num_choices: int
    num_logprobs: int | None
    """Likeliest tokens listed beside each token drawn; None: no log-probabilities."""
    has_usage_chunk: bool
    has_usage_in_chunks: bool


class ChatWriter:
    """Mutable: one request's choices. Streamed or whole, each field of a choice has the same content."""

    def __init__(
        self,
        *,
        chat_id: str,
        model: str,
        system_fingerprint: str,
        created: int,
        num_prompt_tokens: int,
        shape: ChatShape,
        tokenizer: Tokenizer,
    ) -> None:
        self._shape = shape
        self._tokenizer = tokenizer
        self._num_prompt_tokens = num_prompt_tokens
        self._num_cached_tokens = 0
        self._num_completion_tokens = [0] * shape.num_choices
        self._is_begun = [False] * shape.num_choices
        self._bodies: list[dict[str, object]] = []
        self._envelope: dict[str, object] = {
            "id": chat_id,
            "object": "chat.completion",
            "created": created,
            "model": model,
            "system_fingerprint": system_fingerprint,
        }
        chunk_envelope = self._envelope | {"object": "chat.completion.chunk"}
        self._event_head = b"data: " + orjson.dumps(chunk_envelope)[:-1] + b',"choices":['
        # Where a usage chunk comes, the specification wants `usage: null` in all the others.
        self._event_tail = b'],"usage":null}\n\n' if shape.has_usage_chunk else b"]}\n\n"

    # ---- a stream

    def events(self, hand_over: Iterable[PromptDeltas]) -> bytes:
        """The events of one hand-over, to be written at once; empty where there is nothing to show."""
        pieces: list[bytes] = []
        for _, deltas in hand_over:
            for delta in deltas:
                self._add_events(delta, pieces)
        return b"".join(pieces)

    def last_events(self) -> bytes:
        """Usage, if it is wanted, and the end."""
        if not self._shape.has_usage_chunk:
            return DONE
        return self._event_head + b'],"usage":' + orjson.dumps(self._usage()) + b"}\n\n" + DONE

    def _add_events(self, delta: SequenceDelta, pieces: list[bytes]) -> None:
        """A choice's first chunk has the role, its last one the finish reason, and those between its content."""
        self._count(delta)
        if not self._is_begun[delta.index]:
            self._is_begun[delta.index] = True
            self._add_chunk(delta.index, FIRST_DELTA, b"null", b"null}", pieces)
        # Without either, all is held back: half a character, or what may become a stop sequence.
        if delta.text or (delta.logprobs and self._shape.num_logprobs is not None):
            self._add_chunk(
                delta.index,
                b'{"content":' + dump_line(delta.text) + b"}",
                dump_line(self._logprobs(delta.logprobs)),
                b"null}",
                pieces,
            )
        if delta.finish_reason is not None:
            end = b'"%s","stop_reason":%s}' % (delta.finish_reason.value.encode(), dump_line(delta.stop))
            self._add_chunk(delta.index, b"{}", b"null", end, pieces)

    def _add_chunk(self, index: int, content: bytes, logprobs: bytes, end: bytes, pieces: list[bytes]) -> None:
        pieces += (self._event_head, b'{"index":%d,"delta":' % index, content, b',"logprobs":', logprobs)
        pieces += (b',"finish_reason":', end)
        if self._shape.has_usage_in_chunks:
            pieces += (b'],"usage":', orjson.dumps(self._usage()), b"}\n\n")
        else:
            pieces.append(self._event_tail)

    # ---- a whole

    def collect(self, hand_over: Iterable[PromptDeltas]) -> None:
        """Take one hand-over into the whole: the only delta of each of its sequences."""
        for _, deltas in hand_over:
            for delta in deltas:
                self._count(delta)
                assert delta.finish_reason is not None
                self._bodies.append(
                    {
                        "index": delta.index,
                        "message": {"role": "assistant", "content": delta.text, "refusal": None},
                        "logprobs": self._logprobs(delta.logprobs),
                        "finish_reason": delta.finish_reason.value,
                        "stop_reason": delta.stop,
                    }
                )

    def body(self) -> bytes:
        """The whole answer."""
        choices = sorted(self._bodies, key=itemgetter("index"))
        return orjson.dumps(self._envelope | {"choices": choices, "usage": self._usage()})

    # ---- both

    def _count(self, delta: SequenceDelta) -> None:
        self._num_completion_tokens[delta.index] = delta.num_completion_tokens
        if delta.index == 0:
            self._num_cached_tokens = delta.num_cached_tokens

    def _logprobs(self, logprobs: Iterable[TokenLogprobs]) -> dict[str, object] | None:
        num_top = self._shape.num_logprobs
        if num_top is None:
            return None
        content = [
            self._token(token.token_id, token.logprob)
            | {"top_logprobs": [self._token(token_id, logprob) for token_id, logprob in token.top[:num_top]]}
            for token in logprobs
        ]
        return {"content": content, "refusal": None}

    def _token(self, token_id: int, logprob: float) -> dict[str, object]:
        # A padded model has tokens beyond its tokenizer's.
        token = self._tokenizer.token_bytes[token_id] if token_id < self._tokenizer.vocab_size else b""
        return {
            "token": self._tokenizer.token_text(token_id),
            "logprob": max(logprob, MIN_LOGPROB),
            "bytes": list(token),
        }

    def _usage(self) -> dict[str, object]:
        """Tokens so far. The prompt counts once, however many completions it gets."""
        num_completion_tokens = sum(self._num_completion_tokens)
        return {
            "prompt_tokens": self._num_prompt_tokens,
            "completion_tokens": num_completion_tokens,
            "total_tokens": self._num_prompt_tokens + num_completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self._num_cached_tokens},
        }
