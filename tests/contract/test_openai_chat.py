"""OpenAI's client in a chat with the live server, whose chat template comes from a setting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest
from huggingface_hub import InferenceClient
from openai.types.chat import ChatCompletionMessageParam

TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<' + message['role'] + '>' + message['content'] + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"""
MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hello, 東京!"}]},
]
PROMPT = "<|endoftext|><system>Be brief.\n<user>Hello, 東京!\n<assistant>"
GREEDY: dict[str, Any] = {"temperature": 0, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="session")
def chat_server(launch: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    template = tmp_path_factory.mktemp("template") / "chat.jinja"
    template.write_text(TEMPLATE)
    server = launch("serve", chat_template=template)
    server.wait_listening()
    server.wait_ready()
    return server


@pytest.fixture
def client(chat_server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{chat_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def model(client: openai.OpenAI) -> str:
    return client.models.list().data[0].id


def test_an_answer_is_the_completion_of_the_rendered_template(client: openai.OpenAI, model: str) -> None:
    options = {**GREEDY, "model": model}
    completion = client.chat.completions.create(messages=MESSAGES, max_completion_tokens=12, logprobs=True, **options)
    plain = client.completions.create(prompt=PROMPT, max_tokens=12, **options)

    choice = completion.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content == plain.choices[0].text
    assert choice.finish_reason == "length"
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert len(choice.logprobs.content) == 12
    assert completion.object == "chat.completion"
    assert completion.usage is not None
    assert plain.usage is not None
    assert completion.usage.prompt_tokens == plain.usage.prompt_tokens


def test_a_stream_has_the_same_text(client: openai.OpenAI, model: str) -> None:
    options: dict[str, Any] = {**GREEDY, "model": model, "messages": MESSAGES, "max_tokens": 12, "n": 2}
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))

    for index in range(2):
        deltas = [choice.delta for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert [delta.role for delta in deltas if delta.role] == ["assistant"]
        assert "".join(delta.content or "" for delta in deltas) == whole.choices[index].message.content
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert [chunk.choices for chunk in chunks][-1] == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens


def test_the_streaming_helper_puts_the_answer_together(client: openai.OpenAI, model: str) -> None:
    options: dict[str, Any] = {**GREEDY, "model": model, "messages": MESSAGES, "max_tokens": 12}
    text = client.chat.completions.create(**options).choices[0].message.content or ""
    end = next(character for character in text[1:] if character.isascii())

    with client.chat.completions.stream(**options, stop=end) as stream:
        stream.until_done()
        choice = stream.get_final_completion().choices[0]

    assert choice.message.content == text.partition(end)[0]
    assert choice.finish_reason == "stop"


def test_the_asynchronous_client_gets_the_same(chat_server: Any, client: openai.OpenAI, model: str) -> None:
    """Whole, streamed, and several at once."""
    options: dict[str, Any] = {**GREEDY, "model": model, "messages": MESSAGES, "max_tokens": 12}

    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{chat_server.url}/v1", api_key="none", max_retries=0) as others:
            answers = await asyncio.gather(*(others.chat.completions.create(**options) for _ in range(3)))
            streamed = [
                chunk.choices[0].delta.content or ""
                async for chunk in await others.chat.completions.create(**options, stream=True)
            ]
        return [*(answer.choices[0].message.content for answer in answers), "".join(streamed)]

    expected = client.chat.completions.create(**options).choices[0].message.content
    assert asyncio.run(ask()) == [expected] * 4


def test_an_answer_matches_the_requested_schema(client: openai.OpenAI, model: str) -> None:
    """Also with the client's parsing helper."""

    class Person(pydantic.BaseModel):
        name: Literal["Ann", "Bob"]
        is_here: bool

    completion = client.chat.completions.parse(
        messages=MESSAGES, model=model, response_format=Person, max_completion_tokens=200, seed=1
    )
    person = completion.choices[0].message.parsed

    assert isinstance(person, Person)
    assert completion.choices[0].finish_reason == "stop"


def test_an_answer_can_be_sent_back_unchanged(client: openai.OpenAI, model: str) -> None:
    """With all the nulls of the client's own object."""
    options: dict[str, Any] = {**GREEDY, "model": model, "max_tokens": 4}
    message = client.chat.completions.create(messages=MESSAGES, **options).choices[0].message
    history: list[Any] = [*MESSAGES, message, {"role": "user", "content": "Go on."}]

    assert client.chat.completions.create(messages=history, **options).choices[0].message.content is not None


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"messages": []}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"extra_body": {"chat_template": "x"}}, "chat_template"),
    ],
)
def test_errors_are_the_clients_own(client: openai.OpenAI, model: str, options: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": model, "messages": MESSAGES, **options})

    assert caught.value.param == param


def test_without_a_template_the_error_says_what_to_do(server: Any) -> None:
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.BadRequestError, match=r"chat_template\.jinja"),
    ):
        client.chat.completions.create(model="any", messages=MESSAGES)


@pytest.mark.parametrize("kind", ["serve", "uvicorn"])
def test_a_broken_template_stops_the_start_with_one_line(launch: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    template = tmp_path / "broken.jinja"
    template.write_text("{% for message in messages %}")
    server = launch(kind, chat_template=template)

    assert server.wait_exit() != 0
    [line] = [line for line in server.log.splitlines() if "broken.jinja" in line]
    assert json.loads(line)["event"].startswith("chat_template: ")
    assert "Traceback" not in server.log


@pytest.mark.reported("huggingface_hub's InferenceClient, whose chats name the model 'dummy' and have TGI's grammar")
def test_hugging_faces_client_chats_unchanged(chat_server: Any, model: str) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_object", "value": schema}
    with InferenceClient(chat_server.url) as client:
        messages = [{"role": "user", "content": "Well?"}]
        answer = client.chat_completion(messages, max_tokens=20, seed=1, logprobs=False, response_format=form)
        pieces = list(client.chat_completion(messages, max_tokens=20, seed=1, stream=True, response_format=form))
    text = answer.choices[0].message.content
    assert text in ('{"ok": true}', '{"ok": false}')
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == text
    assert answer.model == model
