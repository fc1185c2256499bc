"""`huggingface_hub.InferenceClient` against the live server, sync and async; no call leaves loopback."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient, TextGenerationOutput, TextGenerationStreamOutput
from huggingface_hub.errors import HfHubHTTPError, IncompleteGenerationError, OverloadedError, ValidationError

Ask = Callable[..., Any]
SAMPLED: dict[str, Any] = {"do_sample": True, "seed": 4, "max_new_tokens": 12}


@pytest.fixture(scope="module", autouse=True)
def loopback_only() -> Iterator[None]:
    """Blocks the Hub, which the client asks about models that are not URLs."""
    find = socket.getaddrinfo

    def find_loopback(host: Any, *arguments: Any, **options: Any) -> Any:
        assert host in {"127.0.0.1", b"127.0.0.1"}, host
        return find(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", find_loopback)
        yield
        huggingface_hub.close_session()


@pytest.fixture(scope="module", params=["sync", "async"])
def ask(request: pytest.FixtureRequest, server: Any) -> Iterator[Ask]:
    """Call `text_generation` and read streams to the end."""
    with InferenceClient(server.url) as client, asyncio.Runner() as runner:
        async_client = AsyncInferenceClient(server.url)

        def ask_sync(prompt: str = "once", **options: Any) -> Any:
            answer = client.text_generation(prompt, **options)
            return list(answer) if options.get("stream") else answer

        async def ask_async(prompt: str = "once", **options: Any) -> Any:
            answer = await async_client.text_generation(prompt, **options)
            return [piece async for piece in answer] if options.get("stream") else answer

        is_sync = request.param == "sync"
        yield ask_sync if is_sync else lambda *prompt, **options: runner.run(ask_async(*prompt, **options))
        runner.run(async_client.close())  # type: ignore[no-untyped-call]  # the library's


def test_a_text_and_its_stream_are_the_same(ask: Ask) -> None:
    text = ask(**SAMPLED)
    assert isinstance(text, str)
    assert "".join(ask(**SAMPLED, stream=True)).removesuffix("<|endoftext|>") == text
    assert ask(**SAMPLED, return_full_text=True) == "once" + text


def test_details_parse_into_the_clients_types(ask: Ask) -> None:
    answer = ask(**SAMPLED, details=True, decoder_input_details=True, top_n_tokens=3)
    assert isinstance(answer, TextGenerationOutput)
    details = answer.details
    assert details is not None
    assert details.finish_reason in ("length", "eos_token")
    assert (details.generated_tokens, details.seed) == (len(details.tokens), 4)
    assert [token.id for token in details.prefill] == [*b"once"]
    assert details.prefill[0].logprob is None
    assert all(token.logprob < 0 for token in details.prefill[1:])
    assert details.top_tokens is not None
    for token, top in zip(details.tokens, details.top_tokens, strict=True):
        assert len(top) == 3
        # The client does not convert nested lists into objects.
        assert [one["logprob"] for one in top] == sorted((one["logprob"] for one in top), reverse=True)
        assert all(one["logprob"] == token.logprob for one in top if one["id"] == token.id), "the same float"
    assert "".join(token.text for token in details.tokens if not token.special) == answer.generated_text


def test_details_stream_token_by_token(ask: Ask) -> None:
    whole = ask(**SAMPLED, details=True, top_n_tokens=2)
    events = ask(**SAMPLED, details=True, top_n_tokens=2, stream=True)
    assert all(isinstance(event, TextGenerationStreamOutput) for event in events)
    assert [event.index for event in events] == list(range(1, whole.details.generated_tokens + 1))
    assert [vars(event.token) for event in events] == [vars(token) for token in whole.details.tokens]
    assert [[vars(one) for one in event.top_tokens] for event in events] == whole.details.top_tokens
    assert [event.details for event in events[:-1]] == [None] * (len(events) - 1)
    last = events[-1]
    assert last.generated_text == whole.generated_text
    assert last.details is not None
    assert (last.details.finish_reason, last.details.seed) == (whole.details.finish_reason, 4)
    assert (last.details.generated_tokens, last.details.input_length) == (len(events), 4)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": False},
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.9},
        {"typical_p": 0.9},
        {"repetition_penalty": 1.3},
        {"frequency_penalty": -1.0},
        {"truncate": 2},
        {"stop": ["e", "t"]},
        {"watermark": False},
        {"return_full_text": False},
    ],
    ids=str,
)
def test_every_parameter_is_accepted(ask: Ask, options: dict[str, Any], is_stream: bool) -> None:
    assert ask(**{"max_new_tokens": 3, **options}, stream=is_stream)


def test_best_of_has_the_likeliest_first(ask: Ask) -> None:
    """A request with its seed samples it again."""
    answer = ask(best_of=3, temperature=0.9, max_new_tokens=8, details=True)
    others = answer.details.best_of_sequences
    assert len(others) == 2
    means = [sum(token.logprob for token in one.tokens) / len(one.tokens) for one in (answer.details, *others)]
    assert means[0] == max(means)
    for seed, text in ((answer.details.seed, answer.generated_text), (others[1].seed, others[1].generated_text)):
        assert ask(temperature=0.9, max_new_tokens=8, seed=seed) == text


def test_a_stop_sequence_ends_the_text_and_is_in_it(ask: Ask) -> None:
    whole = ask(**SAMPLED, details=True)
    stop = next(token.text for token in whole.details.tokens[3:] if token.text)
    answer = ask(**SAMPLED, details=True, stop=[stop])
    assert answer.details.finish_reason == "stop_sequence"
    assert answer.generated_text == whole.generated_text[: whole.generated_text.index(stop) + len(stop)]


def test_a_grammar_is_followed(ask: Ask) -> None:
    regex = {"type": "regex", "value": "[0-9]{3}-[a-f]{2}"}
    assert re.fullmatch(regex["value"], ask(**SAMPLED, grammar=regex))
    pieces = ask(**SAMPLED, grammar=regex, stream=True)
    assert re.fullmatch(regex["value"], "".join(pieces).removesuffix("<|endoftext|>"))
    schema: dict[str, Any] = {
        "properties": {"legs": {"type": "integer", "minimum": 1, "maximum": 4}},
        "required": ["legs"],
    }
    schema |= {"type": "object", "additionalProperties": False}
    answer = ask(max_new_tokens=40, grammar={"type": "json", "value": schema}, details=True)
    assert answer.details.finish_reason == "eos_token"
    assert 1 <= json.loads(answer.generated_text)["legs"] <= 4


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"top_p": 1.0}, "top_p"),
        ({"best_of": 2}, "best_of"),
        ({"max_new_tokens": 100_000}, "max_new_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"watermark": True}, "watermark"),
        ({"adapter_id": "lora"}, "adapter_id"),
        ({"grammar": {"type": "regex", "value": "("}}, "grammar"),
        ({"top_n_tokens": 21}, "top_n_tokens"),
    ],
    ids=str,
)
def test_a_refusal_is_a_validation_error(ask: Ask, options: dict[str, Any], name: str, is_stream: bool) -> None:
    """The error names the parameter, and the client still treats the server as TGI."""
    with pytest.raises(ValidationError, match=name):
        ask(**options, stream=is_stream)
    assert ask(max_new_tokens=1, details=True).details is not None
    assert ask(max_new_tokens=1, stream=True)


def test_invalid_prompts(ask: Ask) -> None:
    for prompt in ("", "a" * 20_000):
        with pytest.raises(ValidationError, match="inputs"):
            ask(prompt)


def test_overload_is_an_overloaded_error(launch: Callable[..., Any], wait_until: Callable[..., Any]) -> None:
    """While one request runs and one waits. The answer has a time to retry."""
    server = launch("serve", max_num_sequences=1, max_waiting_requests=1)
    server.wait_listening()
    server.wait_ready()
    with ThreadPoolExecutor(1) as pool, server.stream(max_tokens=16000) as running:
        lines = running.iter_lines()  # Kept, because garbage collection would close the response.
        next(lines)
        waiting = pool.submit(server.complete, prompt="once", max_tokens=1)
        wait_until(lambda: server.metric("distilgpt2_waiting_sequences") == 1, "one request waits")
        for is_stream in (False, True):
            with InferenceClient(server.url) as client, pytest.raises(OverloadedError) as caught:
                client.text_generation("once", max_new_tokens=1, stream=is_stream)
            cause = caught.value.__cause__
            assert isinstance(cause, HfHubHTTPError)
            assert cause.response.status_code == 429
            assert 1 <= int(cause.response.headers["retry-after"]) <= 120
        running.close()
        assert waiting.result().status_code == 200


def test_a_missed_deadline_is_an_incomplete_generation(launch: Callable[..., Any]) -> None:
    """In a stream the error is its last event."""
    server = launch("serve", timeout_s=0.3)
    server.wait_listening()
    server.wait_ready()
    with InferenceClient(server.url) as client:
        for is_stream in (False, True):
            pieces: list[str] = []
            with pytest.raises(IncompleteGenerationError, match="deadline"):
                pieces += client.text_generation("once", max_new_tokens=16000, stream=is_stream)


def test_the_client_reads_limits_and_health(server: Any) -> None:
    with InferenceClient(server.url, provider="hf-inference") as client:
        assert client.health_check()
        info = client.get_endpoint_info()
    assert info["model_pipeline_tag"] == "text-generation"
    assert info["max_total_tokens"] == info["max_input_tokens"] + 1 == 16384


@pytest.mark.reported("users of InferenceClient's chat, who found only text_generation in the documentation")
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("path", ["", "/v1"])
def test_a_chat_and_its_stream_are_the_same(small_server: Any, path: str, is_async: bool) -> None:
    options: dict[str, Any] = {"messages": [{"role": "user", "content": "once"}], "max_tokens": 8, "seed": 3}
    url = f"{small_server.url}{path}"

    async def ask() -> tuple[str, str]:
        async with AsyncInferenceClient(url) as client:
            answer = await client.chat_completion(**options)
            stream = await client.chat_completion(stream=True, **options)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return answer.choices[0].message.content or "", "".join(pieces)

    if is_async:
        whole, streamed = asyncio.run(ask())
    else:
        with InferenceClient(url) as client:
            whole = client.chat_completion(**options).choices[0].message.content or ""
            chunks = client.chat_completion(stream=True, **options)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert whole
    assert streamed == whole


@pytest.mark.reported("users of Hugging Face's clients whose endpoint ended in /generate, or lacked /v1 in a chat")
def test_a_chat_below_an_endpoints_path_says_where_it_is(small_server: Any) -> None:
    with InferenceClient(f"{small_server.url}/generate") as client:
        with pytest.raises(HfHubHTTPError, match="did you mean /v1/chat/completions") as caught:
            client.chat_completion([{"role": "user", "content": "once"}])
        assert caught.value.response.status_code == 404
        assert client.text_generation("once", max_new_tokens=3)
