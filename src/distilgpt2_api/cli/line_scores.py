"""`distilgpt2-api evaluate --jsonl`: scores each text of a file, as `POST /v1/score` does."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from distilgpt2_api.cli.local_engine import open_engine
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.scoring import Passage, Score, ScoringPrompt, encode_passages, score_of, scoring_request
from distilgpt2_api.engine.sync import run_requests
from distilgpt2_api.settings import Settings

BATCH_SIZE = 256
"""Texts in flight: enough to fill each step, few enough to print the first scores soon."""


def read_passages(file: Path, *, field: str | None) -> list[Passage]:
    """One passage per non-blank line. `field`: the field of each line that has the text.

    Raises InvalidRequestError, which names file and line.
    """
    passages = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    passages.append(_parse(line, field, name=f"{file} line {number}"))
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None
    if not passages:
        raise InvalidRequestError(f"{file} has no text")
    return passages


def _parse(line: str, field: str | None, *, name: str) -> Passage:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidRequestError(f"{name} is not valid JSON") from None
    if field is not None:
        text = value.get(field) if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise InvalidRequestError(f"{name} must be an object with the string {field}")
        return Passage(name=name, text=text)
    match value:
        case str():
            return Passage(name=name, text=value)
        case {"context": str(context), "continuation": str(continuation), **others} if not others:
            return Passage(name=name, text=continuation, context=context)
        case {"text": str(text), **others} if not others.keys() & {"context", "continuation"}:
            return Passage(name=name, text=text)
    raise InvalidRequestError(
        f"{name} must be a string, an object with the string text, or one with only the strings context and "
        "continuation; --field names another field"
    )


def print_scores(passages: Sequence[Passage], settings: Settings) -> None:
    """Print one line of JSON per passage, in order. If any passage is invalid, raise InvalidRequestError first."""
    with open_engine(settings) as engine:
        prompts = encode_passages(passages, engine.tokenizer, engine.config)
        for first in range(0, len(prompts), BATCH_SIZE):
            for index, score in enumerate(_score(engine, prompts[first : first + BATCH_SIZE]), start=first):
                click.echo(json.dumps({"index": index, **score.as_fields()}))


def _score(engine: Engine, prompts: Sequence[ScoringPrompt]) -> list[Score]:
    requests = [scoring_request(prompt, request_id=str(index)) for index, prompt in enumerate(prompts)]
    scores = {
        request_id: score_of(delta.prompt_logprobs or (), engine.tokenizer.token_bytes)
        for request_id, delta in run_requests(engine, requests)
    }
    return [scores[request.request_id] for request in requests]
