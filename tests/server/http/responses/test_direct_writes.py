"""Streams on real sockets: our server writes tokens directly, others through ASGI, and clients see the same."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from distilgpt2_api.core.outputs import SequenceDelta
from distilgpt2_api.server.http.connections.connections import limited_protocol
from distilgpt2_api.server.http.limits import ConnectionLimits
from distilgpt2_api.server.protocols.openai.completions.writer import CompletionWriter
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

LIMITS = ConnectionLimits(header_timeout_s=20, max_header_bytes=4096, write_timeout_s=20, max_connections=64)
OURS = limited_protocol(LIMITS, OPENAI_ERRORS)
UNIQUE = re.compile(rb'"(?:id|created)":(?:"[^"]*"|\d+)')
COMPLETION: dict[str, Any] = {"prompt": "a", "max_tokens": 9, "stream": True}


def request(path: str, **body: object) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


@asynccontextmanager
async def connected(
    client: Any, protocol: Callable[..., Any] = OURS
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = Config(client.scene.app, lifespan="off", ws="none", log_config=None)
    config.load()
    state = ServerState()
    listener = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with listener, asyncio.timeout(20):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(listener.sockets[0].getsockname())
        reader, writer = await asyncio.open_connection(sock=connection, limit=4096)
        try:
            yield reader, writer
        finally:
            writer.close()
            while state.connections or state.tasks:  # noqa: ASYNC110 - Uvicorn has no event for it
                await asyncio.sleep(0)


async def read_chunks(reader: asyncio.StreamReader) -> list[bytes]:
    """The chunks of one answer's body, whose head has been read."""
    chunks = []
    while size := int(await reader.readline(), 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
    await reader.readline()
    return chunks


def stream(client: Any, path: str, protocol: Callable[..., Any] = OURS, **body: object) -> list[bytes]:
    async def play() -> list[bytes]:
        async with connected(client, protocol) as (reader, writer):
            writer.write(request(path, **body))
            await reader.readuntil(b"\r\n\r\n")
            return await read_chunks(reader)

    chunks: list[bytes] = client.runner.run(play())
    return chunks


def events_of(chunks: list[bytes]) -> list[bytes]:
    return UNIQUE.sub(b"", b"".join(chunks)).split(b"\n\n")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", COMPLETION),
        ("/v1/completions", {**COMPLETION, "n": 3, "seed": 1, "logprobs": 2, "stop": ["wor"]}),
        ("/v1/completions", {**COMPLETION, "prompt": ["a", "b"], "echo": True, "return_token_ids": True}),
        (
            "/v1/completions",
            {**COMPLETION, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        ),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "stream": True}),
        ("/generate_stream", {"inputs": "a", "parameters": {"details": True}}),
    ],
)
def test_clients_of_each_server_get_the_same_events(
    open_client: Callable[..., Any], path: str, body: dict[str, Any]
) -> None:
    client = open_client(chat_template=ChatTemplate("{{ messages[0].content }}", origin="test"))
    events = events_of(stream(client, path, **body))
    assert len(events) > 4
    assert sorted(events) == sorted(events_of(stream(client, path, HttpToolsProtocol, **body)))


def test_each_step_is_one_chunk_that_passes_no_middleware(
    open_client: Callable[..., Any], build_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Except the first, with the head. Each has complete events only."""
    sent: list[Any] = []
    send = RequestResponseCycle.send

    async def record(cycle: RequestResponseCycle, message: Any) -> None:
        sent.append(message["type"])
        await send(cycle, message)

    monkeypatch.setattr(RequestResponseCycle, "send", record)
    runner = build_runner(is_gated=True)
    client = open_client(runner=runner)

    async def play() -> None:
        async with connected(client) as (reader, writer):
            writer.write(request("/v1/completions", **COMPLETION, n=2))
            runner.gate.release()
            await reader.readuntil(b"\r\n\r\n")
            for number in range(4):
                size = int(await reader.readline(), 16)
                chunk = (await reader.readexactly(size + 2))[:-2]
                assert (chunk.count(b"data: "), chunk[-2:]) == (2, b"\n\n"), number
                runner.gate.release()
            assert sent == ["http.response.start", "http.response.body"]
            runner.open_gate()

    client.runner.run(play())


def test_a_client_that_pauses_gets_everything_in_order(open_client: Callable[..., Any], build_runner: Any) -> None:
    """The buffers are full meanwhile, so tokens wait for the client."""
    body = {**COMPLETION, "max_tokens": 250, "n": 4, "logprobs": 5}
    script = bytes(range(65, 91)) * 10
    client = open_client(runner=build_runner(script=script))

    async def play() -> list[bytes]:
        async with connected(client) as (reader, writer):
            writer.write(request("/v1/completions", **body))
            while not client.scene.engine.is_idle or not client.scene.runner.plans:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0)
            await reader.readuntil(b"\r\n\r\n")
            return await read_chunks(reader)

    chunks = client.runner.run(play())
    texts = [""] * 4
    for line in b"".join(chunks).split(b"\n\n")[:-2]:
        for choice in json.loads(line.removeprefix(b"data: "))["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [script[:250].decode()] * 4
    assert any(chunk.count(b"data: ") > 4 for chunk in chunks), "what waited came at once"


def test_an_error_in_a_writer_ends_only_its_stream(
    open_client: Callable[..., Any], build_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_chunks = CompletionWriter.add_chunks

    def fail_late(writer: CompletionWriter, prompt_index: int, delta: SequenceDelta, pieces: list[bytes]) -> None:
        if delta.num_completion_tokens == 3:
            raise ZeroDivisionError
        add_chunks(writer, prompt_index, delta, pieces)

    runner = build_runner(is_gated=True)
    client = open_client(runner=runner)

    async def play() -> list[bytes]:
        async with connected(client) as (reader, writer):
            writer.write(request("/v1/completions", **COMPLETION))
            runner.gate.release()
            await reader.readuntil(b"\r\n\r\n")
            runner.open_gate()
            return await read_chunks(reader)

    with monkeypatch.context() as patch:
        patch.setattr(CompletionWriter, "add_chunks", fail_late)
        chunks = client.runner.run(play())
    assert json.loads(chunks[-1].removeprefix(b"data: "))["error"]["code"] == "internal_error"
    assert client.complete(prompt="a", max_tokens=1).status_code == 200
    assert client.scene.engines[0].num_free_blocks == 64
