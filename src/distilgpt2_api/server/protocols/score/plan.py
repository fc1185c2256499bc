"""A score request's `input`, checked and tokenized, and its plan."""

import uuid
from collections.abc import Sequence
from functools import partial

from distilgpt2_api.core.config import ModelConfig
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.engine.scoring import Passage, ScoringPrompt, encode_passages, scoring_prompt, scoring_request
from distilgpt2_api.engine.validation import check_token_ids
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.generation.plan import GenerationPlan
from distilgpt2_api.server.generation.prompts import are_token_ids
from distilgpt2_api.server.generation.text_work import TextEncoder
from distilgpt2_api.server.http.errors import UnknownParameterError
from distilgpt2_api.server.protocols.score.schema import ScoreRequest
from distilgpt2_api.server.service import Service
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

PAIR_KEYS = ("context", "continuation")
FORMS = "a text, a list of token ids or an object with context and continuation"


async def plan_score(
    request: ScoreRequest, service: Service, record: RequestRecord, encoder: TextEncoder
) -> GenerationPlan:
    """Raises InvalidRequestError."""
    prompts = await _encode_input(
        request.input, encoder=encoder, config=service.engine.model_config, max_items=service.limits.max_prompts
    )
    group_id = uuid.uuid4().hex
    requests = [
        scoring_request(
            prompt,
            request_id=f"{group_id}-{index}",
            priority=request.priority or 0,
            deadline_s=service.limits.deadline_s(request.timeout_s),
        )
        for index, prompt in enumerate(prompts)
    ]
    plan = GenerationPlan(requests=requests)
    record.num_prompt_tokens = plan.num_prompt_tokens
    return plan


async def _encode_input(
    value: object, *, encoder: TextEncoder, config: ModelConfig, max_items: int
) -> list[ScoringPrompt]:
    """One prompt per item. Raises InvalidRequestError, which names the item: `input`, or `input.0` and so on."""
    tokenizer = encoder.tokenizer
    named = _name_items(value, max_items)
    # Texts are tokenized together, on all cores. Token ids need no tokenization.
    prompts: dict[int, ScoringPrompt] = {}
    passages: dict[int, Passage] = {}
    for index, (name, item) in enumerate(named):
        match item:
            case str():
                passages[index] = Passage(name=name, text=item)
            case dict():
                context, continuation = _parts(name, item)
                if isinstance(context, str):
                    assert isinstance(continuation, str)
                    passages[index] = Passage(name=f"{name}.continuation", text=continuation, context=context)
                else:
                    assert not isinstance(continuation, str)
                    check_token_ids(context, config, param=f"{name}.context")
                    prompts[index] = _prompt_of_ids(f"{name}.continuation", context, continuation, tokenizer, config)
            case _:
                assert are_token_ids(item)
                prompts[index] = _prompt_of_ids(name, (), item, tokenizer, config)
    work = partial(encode_passages, list(passages.values()), tokenizer, config)
    num_characters = sum(len(passage.context) + len(passage.text) for passage in passages.values())
    encoded = await encoder.run(work, num_characters=num_characters)
    prompts |= dict(zip(passages, encoded, strict=True))
    return [prompts[index] for index in range(len(named))]


def _name_items(value: object, max_items: int) -> Sequence[tuple[str, object]]:
    if isinstance(value, list) and not are_token_ids(value):
        if len(value) > max_items:
            raise InvalidRequestError(
                f"input has {len(value)} items; this service allows at most {max_items} in one request", param="input"
            )
        named = [(f"input.{index}", item) for index, item in enumerate(value)]
    else:
        named = [("input", value)]
    for name, item in named:
        if item in ("", []):
            raise InvalidRequestError(f"{name} is empty; it needs at least one token to score", param=name)
        if not isinstance(item, str | dict) and not are_token_ids(item):
            whole = f"{FORMS}, or a list of such items" if name == "input" else FORMS
            raise InvalidRequestError(f"{name} must be {whole}", param=name)
    return named


def _parts(name: str, pair: dict[str, object]) -> tuple[str | list[int], str | list[int]]:
    for key in pair:
        if key not in PAIR_KEYS:
            raise UnknownParameterError(f"unknown parameter: {f'{name}.{key}'[:100]!r}", param=f"{name}.{key}"[:100])
    for key in PAIR_KEYS:
        if key not in pair:
            raise InvalidRequestError(f"{name}.{key} is required", param=f"{name}.{key}")
    context, continuation = (pair[key] for key in PAIR_KEYS)
    if isinstance(context, str) and isinstance(continuation, str):
        return context, continuation
    if are_token_ids(context) and are_token_ids(continuation):
        return context, continuation
    raise InvalidRequestError(f"{name}: context and continuation must both be texts, or both token ids", param=name)


def _prompt_of_ids(
    name: str, context: Sequence[int], token_ids: Sequence[int], tokenizer: Tokenizer, config: ModelConfig
) -> ScoringPrompt:
    if not token_ids:
        raise InvalidRequestError(f"{name} is empty; it needs at least one token to score", param=name)
    check_token_ids(token_ids, config, param=name)
    return scoring_prompt(context, token_ids, name=name, tokenizer=tokenizer, config=config)
