"""OpenAI's own client against the live server: completions whole and streamed, errors as its types, retries."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import openai
import pytest

Json = dict[str, Any]


@pytest.fixture
def client(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def model(client: openai.OpenAI) -> str:
    return client.models.list().data[0].id


def joined(chunks: Any) -> dict[int, Json]:
    """The choices of a stream's chunks, joined."""
    choices: dict[int, Json] = defaultdict(
        lambda: {"text": "", "logprobs": None, "finish_reason": None, "stop_reason": None}
    )
    for chunk in chunks:
        for piece in chunk.choices:
            said = piece.to_dict()
            choice = choices[said.pop("index")]
            choice["text"] += said.pop("text")
            if (lists := said.pop("logprobs")) is not None:
                choice["logprobs"] = choice["logprobs"] or {name: [] for name in lists}
                for name, values in lists.items():
                    choice["logprobs"][name] += values
            if "token_ids" in said:
                choice["token_ids"] = choice.get("token_ids", []) + said.pop("token_ids")
            choice |= {name: value for name, value in said.items() if value is not None}
    return dict(choices)


def test_a_completion_parses_into_the_clients_types(client: openai.OpenAI, model: str) -> None:
    completion = client.completions.create(
        model=model, prompt="once", max_tokens=5, seed=1, extra_body={"ignore_eos": True}
    )
    assert completion.object == "text_completion"
    assert completion.model == model
    assert completion.id.startswith("cmpl-")
    assert completion.system_fingerprint
    assert completion._request_id
    [choice] = completion.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert completion.usage is not None
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 5, 9)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 0


@pytest.mark.parametrize(
    ("prompt", "num_prompts"), [("once", 1), (["once", "upon"], 2), ([97, 98, 99], 1), ([[97, 98], [99]], 2)]
)
def test_every_form_of_prompt(client: openai.OpenAI, model: str, prompt: Any, num_prompts: int) -> None:
    completion = client.completions.create(model=model, prompt=prompt, max_tokens=2, n=2)
    assert [choice.index for choice in completion.choices] == list(range(2 * num_prompts))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0, "logprobs": 3},
        {"n": 3, "logprobs": 0},
        {"prompt": ["once", "upon a time"], "n": 2, "echo": True, "logprobs": 1},
        {"prompt": [[104, 105], [226, 130, 172]], "echo": True, "logprobs": 2},
        {"echo": True, "max_tokens": 0, "logprobs": 1},
        {"temperature": 0.7, "top_p": 0.8, "frequency_penalty": 0.5, "presence_penalty": -0.5},
        {"stop": ["a", "e"], "logprobs": 1},
        {"stop": "e", "extra_body": {"include_stop_str_in_output": True, "return_token_ids": True}},
        {"logit_bias": {"97": 50, "98": 50}, "logprobs": 5},
        {"extra_body": {"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.2, "return_token_ids": True}},
        {"extra_body": {"typical_p": 0.5, "no_repeat_ngram_size": 2}},
        {"extra_body": {"allowed_token_ids": [97, 98, 99, 256], "return_tokens_as_token_ids": True}, "logprobs": 2},
        {"extra_body": {"allowed_token_ids": [97, 98, 99], "bad_words": ["ab", "c"], "stop_token_ids": [98]}},
        {"extra_body": {"truncate_prompt_tokens": 5, "request_id": "mine"}, "echo": True, "prompt": "once upon a time"},
        {"extra_body": {"ignore_eos": True, "min_tokens": 3}, "user": "someone"},
        {"best_of": 2, "n": 2},
        {"extra_body": {"guided_choice": ["yes", "no, thanks"]}, "n": 3, "logprobs": 1},
        {"extra_body": {"guided_regex": "(a|b){3}c"}, "temperature": 0},
        {"extra_body": {"response_format": {"type": "json_object"}, "return_token_ids": True}},
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_streamed_and_whole_are_the_same_field_by_field(
    client: openai.OpenAI, model: str, options: Json, seed: int
) -> None:
    """Sampled by the real engine, with the same seed."""
    asked: Json = {"model": model, "prompt": "Once, 東京", "max_tokens": 24, "seed": seed, **options}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    expected = {choice.index: choice.to_dict() for choice in whole.choices}
    assert joined(chunks) == {
        index: {name: value for name, value in choice.items() if name != "index"} for index, choice in expected.items()
    }
    last = chunks[-1]
    assert last.choices == []
    assert last.usage is not None
    assert whole.usage is not None
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert getattr(last.usage, name) == getattr(whole.usage, name)
    assert {chunk.system_fingerprint for chunk in chunks} == {whole.system_fingerprint}
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize(
    ("asked", "is_so"),
    [
        ({"guided_choice": ["yes", "no, thanks"]}, lambda text: text in ("yes", "no, thanks")),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, lambda text: text in ("yes", "no")),
        ({"guided_regex": "[0-9]{3}-[a-f]"}, lambda text: re.fullmatch("[0-9]{3}-[a-f]", text)),
        ({"guided_grammar": 'start: "x" "y"?'}, lambda text: text in ("x", "xy")),
        ({"guided_json": {"enum": [1, "two", None]}}, lambda text: json.loads(text) in (1, "two", None)),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {
                        "name": "answer",
                        "schema": {
                            "type": "object",
                            "properties": {"ok": {"type": "boolean"}, "size": {"enum": ["S", "L"]}},
                            "required": ["ok", "size"],
                            "additionalProperties": False,
                        },
                    },
                }
            },
            lambda text: json.loads(text).keys() == {"ok", "size"},
        ),
    ],
)
def test_a_completion_matches_the_requested_grammar(
    client: openai.OpenAI, model: str, asked: Json, is_so: Callable[[str], Any]
) -> None:
    """Whatever the model prefers. The completion ends when the grammar is complete."""
    completion = client.completions.create(
        model=model, prompt="once", max_tokens=400, n=4, temperature=1.5, seed=1, extra_body=asked
    )
    for choice in completion.choices:
        assert choice.finish_reason == "stop"
        assert is_so(choice.text), choice.text


def test_best_of_answers_the_likeliest_of_those_that_n_answers(client: openai.OpenAI, model: str) -> None:
    """The same seed samples the same sequences, and their mean log-probability per token ranks them."""
    asked: Json = {"model": model, "prompt": "once", "max_tokens": 12, "seed": 5, "logprobs": 0}
    everything = client.completions.create(**asked, n=6)
    best = client.completions.create(**asked, n=2, best_of=6)

    def mean(choice: Any) -> float:
        return float(sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs))

    ranked = sorted(everything.choices, key=mean, reverse=True)
    assert [choice.text for choice in best.choices] == [choice.text for choice in ranked[:2]]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage is not None
    assert everything.usage is not None
    assert best.usage.completion_tokens == everything.usage.completion_tokens


def test_a_scored_token_is_greedy_exactly_if_it_is_the_largest_of_the_top(client: openai.OpenAI, model: str) -> None:
    """lm-eval's comparison, on a greedy and on a sampled completion."""
    asked: Json = {"model": model, "extra_body": {"ignore_eos": True}, "max_tokens": 16}
    for temperature, is_greedy in ((0, True), (2, False)):
        drawn = client.completions.create(
            prompt="once", temperature=temperature, seed=1, **asked | {"extra_body": {"return_token_ids": True}}
        )
        token_ids: list[int] = drawn.choices[0].token_ids  # type: ignore[attr-defined]  # vLLM's extra
        scored = client.completions.create(
            model=model, prompt=[[*b"once", *token_ids]], echo=True, logprobs=1, max_tokens=1, temperature=0, seed=1234
        )
        logprobs: Any = scored.choices[0].logprobs
        values, tops = logprobs.token_logprobs[4:-1], logprobs.top_logprobs[4:-1]
        assert len(values) == len(token_ids)
        pairs = zip(values, tops, strict=True)
        assert all(value == max(top.values()) for value, top in pairs) is is_greedy


def test_prompt_logprobs_are_those_of_the_echo(client: openai.OpenAI, model: str) -> None:
    completion = client.completions.create(
        model=model, prompt="once", max_tokens=0, echo=True, logprobs=0, extra_body={"prompt_logprobs": 2}
    )
    choice: Any = completion.choices[0]
    echoed = choice.logprobs.token_logprobs
    positions = choice.prompt_logprobs
    assert positions[0] is echoed[0] is None
    for token_id, position, logprob in zip(b"nce", positions[1:], echoed[1:], strict=True):
        assert position[str(token_id)]["logprob"] == logprob
        assert sorted(entry["rank"] for entry in position.values() if entry["rank"]) == [1, 2]


def test_the_asynchronous_client_gets_the_same(server: Any, client: openai.OpenAI, model: str) -> None:
    """Whole, streamed, and several at once."""
    asked: Json = {"model": model, "prompt": "once", "max_tokens": 12, "seed": 3}

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as others:
            answers = await asyncio.gather(*(others.completions.create(**asked) for _ in range(3)))
            stream = await others.completions.create(**asked, stream=True)
            streamed = [chunk.choices[0].text async for chunk in stream]
        return [*(answer.choices[0].text for answer in answers), "".join(streamed)]

    assert asyncio.run(ask()) == [client.completions.create(**asked).choices[0].text] * 4


def test_closing_a_stream_early_ends_the_generation(
    server: Any, client: openai.OpenAI, model: str, wait_until: Callable[..., Any]
) -> None:
    stream = client.completions.create(
        model=model, prompt="once", max_tokens=8000, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    wait_until(lambda: server.metric("distilgpt2_running_sequences") == 0, "nothing runs on")


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"temperature": 3}, (openai.BadRequestError, "temperature", None)),
        ({"suffix": "end"}, (openai.BadRequestError, "suffix", "unsupported_parameter")),
        ({"extra_body": {"max_token": 5}}, (openai.BadRequestError, "max_token", "unknown_parameter")),
        ({"max_tokens": 20000}, (openai.BadRequestError, "max_tokens", "context_length_exceeded")),
        ({"prompt": [999]}, (openai.BadRequestError, "prompt", None)),
        ({"extra_body": {"allowed_token_ids": [97], "bad_words": ["a"]}}, (openai.BadRequestError, None, None)),
        ({"model": "another"}, (openai.NotFoundError, "model", "model_not_found")),
    ],
)
def test_an_error_is_the_clients_exception_with_param_and_code(
    client: openai.OpenAI,
    model: str,
    asked: Json,
    expected: tuple[type[openai.APIStatusError], str, str | None],
    is_stream: Any,
) -> None:
    kind, param, code = expected
    with pytest.raises(kind) as caught:
        client.completions.create(**{"model": model, "prompt": "once", "stream": is_stream, **asked})
    assert (caught.value.param, caught.value.code, caught.value.type) == (param, code, "invalid_request_error")
    assert caught.value.request_id
    assert caught.value.body is not None


def test_an_unknown_model_is_not_found(client: openai.OpenAI, model: str) -> None:
    assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


def test_a_callers_request_id_comes_back(client: openai.OpenAI, model: str) -> None:
    completion = client.completions.create(
        model=model, prompt="once", max_tokens=1, extra_headers={"x-request-id": "mine-1"}
    )
    assert completion._request_id == "mine-1"


class Attempts:
    """Mutable: the statuses that a client got, including its retries. Calls `on_answer` for each."""

    def __init__(self, on_answer: Callable[[Any], None] = lambda answer: None) -> None:
        self.statuses: list[int] = []
        self.headers: list[Any] = []
        self._on_answer = on_answer

    def __call__(self, answer: Any) -> None:
        self.statuses.append(answer.status_code)
        self.headers.append(answer.headers)
        self._on_answer(answer)

    def client(self, server: Any, *, max_retries: int = 2) -> openai.OpenAI:
        http_client = openai.DefaultHttpxClient(event_hooks={"response": [self]})
        return openai.OpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=max_retries, http_client=http_client
        )


@pytest.fixture(scope="module")
def narrow_server(launch: Callable[..., Any]) -> Any:
    """One sequence runs and one request waits; the next is refused."""
    server = launch("serve", max_num_sequences=1, max_waiting_requests=1)
    server.wait_listening()
    server.wait_ready()
    return server


@contextmanager
def full(server: Any, wait_until: Callable[..., Any]) -> Iterator[Callable[[], None]]:
    """While one request runs and one waits. Returns a function that hangs up the running one."""
    with ThreadPoolExecutor(1) as pool, server.stream(max_tokens=16000) as running:
        lines = running.iter_lines()  # Kept, because garbage collection would close the response.
        next(lines)
        waiting = pool.submit(server.complete, prompt="once", max_tokens=1)
        wait_until(lambda: server.metric("distilgpt2_waiting_sequences") == 1, "one request waits")
        yield running.close
        running.close()
        assert waiting.result().status_code == 200


@pytest.fixture
def narrow_model(narrow_server: Any) -> str:
    return str(narrow_server.get("/v1/models").json()["data"][0]["id"])


def test_a_refusal_is_a_rate_limit_error_with_a_retry_time(
    narrow_server: Any, narrow_model: str, wait_until: Callable[..., Any]
) -> None:
    with full(narrow_server, wait_until), Attempts().client(narrow_server, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            client.completions.create(model=narrow_model, prompt="once", max_tokens=1)
        assert (caught.value.type, caught.value.code, caught.value.param) == ("rate_limit_error", "overloaded", None)
        headers = caught.value.response.headers
        assert headers["x-should-retry"] == "true"
        assert 1 <= int(headers["retry-after"]) <= 120
        assert (int(headers["retry-after"]) - 1) * 1000 < int(headers["retry-after-ms"]) <= 120_000


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_refusal_is_retried_and_then_succeeds(
    narrow_server: Any, narrow_model: str, wait_until: Callable[..., Any], is_stream: Any
) -> None:
    """The running request hangs up at the refusal, which makes room for the retry."""
    with full(narrow_server, wait_until) as hang_up:
        attempts = Attempts(lambda answer: hang_up() if answer.status_code == 429 else None)
        with attempts.client(narrow_server) as client:
            completion = client.completions.create(model=narrow_model, prompt="once", max_tokens=1, stream=is_stream)
            if is_stream:
                list(completion)
    assert attempts.statuses == [429, 200]


def test_a_permanent_error_is_not_retried(narrow_server: Any, narrow_model: str) -> None:
    """A missed deadline has `x-should-retry: false`, which the client obeys although the status is 504."""
    attempts = Attempts()
    with attempts.client(narrow_server) as client, pytest.raises(openai.InternalServerError) as caught:
        client.completions.create(
            model=narrow_model,
            prompt="once",
            max_tokens=16000,
            extra_body={"ignore_eos": True, "timeout_s": 0.05},
        )
    assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")
    assert attempts.statuses == [504]
    assert attempts.headers[0]["x-should-retry"] == "false"


def test_a_wrong_request_is_not_retried(narrow_server: Any, narrow_model: str) -> None:
    attempts = Attempts()
    with attempts.client(narrow_server) as client, pytest.raises(openai.BadRequestError):
        client.completions.create(model=narrow_model, prompt="")
    assert attempts.statuses == [400]
