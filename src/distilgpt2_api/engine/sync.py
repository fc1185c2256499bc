"""Generation without an event loop: the caller's thread runs the engine's steps."""

import time
from collections.abc import Iterator, Sequence

from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.validation import validate_request


def encode_prompt(engine: Engine, prompt: str) -> tuple[int, ...]:
    """Encodes the prompt, with the special tokens that the tokenizer's files add. If that gives no token, the prompt is
    the end of text, if the model has one.
    """
    if token_ids := engine.tokenizer.with_special_tokens(engine.tokenizer.encode(prompt)):
        return tuple(token_ids)
    end_of_text_id = engine.tokenizer.end_of_text_id(engine.config)
    return () if end_of_text_id is None else (end_of_text_id,)


def complete(engine: Engine, request: GenerationRequest, prompt: str) -> list[str]:
    """Returns the prompt with each of the request's completions. See `run_requests`."""
    texts = [prompt] * request.num_sequences
    for delta in run_request(engine, request):
        texts[delta.index] += delta.text
    return texts


def run_request(engine: Engine, request: GenerationRequest) -> Iterator[SequenceDelta]:
    """Yields the deltas of one request. See `run_requests`."""
    for _, delta in run_requests(engine, [request]):
        yield delta


def run_requests(engine: Engine, requests: Sequence[GenerationRequest]) -> Iterator[tuple[str, SequenceDelta]]:
    """Runs requests together. Yields each delta with its request's id. Closing the iterator aborts what still runs.

    The engine must have no thread and no other request. Raises InvalidRequestError.
    """
    for request in requests:
        validate_request(request, engine.config, engine.tokenizer)
    try:
        for request in requests:
            engine.add(request, submitted_s=time.monotonic())
        while engine.has_work:
            for request_id, deltas in engine.step().deltas.items():
                for delta in deltas:
                    yield request_id, delta
    finally:
        for request in requests:
            engine.abort(request.request_id)
