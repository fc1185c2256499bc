"""Requests and responses between the gateway and a replica."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from distilgpt2_api.scale_out.gateway.forwarded import ForwardedRequest, answer, forwardable_scope, whole_answer

START = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
REQUEST = ForwardedRequest(scope={"type": "http"}, body=b"asked")


def piece(content: bytes, *, is_last: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": not is_last}


def test_only_the_specifications_keys_are_sent() -> None:
    scope = {"type": "http", "path": "/", "state": object(), "extensions": {}}

    assert forwardable_scope(scope) == {"type": "http", "path": "/"}


def test_the_application_reads_the_body_and_its_messages_arrive_in_order() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["mine"] = 1
        asked = await receive()
        await send(START)
        await asyncio.sleep(0)
        await send(piece(asked["body"]))
        await send(piece(b"!", is_last=True))

    async def play() -> list[Any]:
        return [messages async for messages in answer(app, REQUEST)]

    together = asyncio.run(play())

    assert [message for messages in together for message in messages] == [
        START,
        piece(b"asked"),
        piece(b"!", is_last=True),
    ]
    assert together[-1] == [piece(b"asked"), piece(b"!", is_last=True)], (
        "messages that were sent together stay together"
    )
    assert REQUEST.scope == {"type": "http"}, "it may be sent again"


def test_closing_the_generator_disconnects() -> None:
    heard: list[str] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        heard.append((await receive())["type"])
        await send(piece(b"not read"))

    async def play() -> None:
        messages = answer(app, REQUEST)
        assert await anext(messages) == [START]
        await messages.aclose()

    asyncio.run(play())
    assert heard == ["http.disconnect"]


def test_an_error_of_the_application_is_raised_after_its_messages() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        raise RuntimeError("broken")

    async def play() -> None:
        messages = answer(app, REQUEST)
        assert await anext(messages) == [START]
        with pytest.raises(RuntimeError, match="broken"):
            await anext(messages)

    asyncio.run(play())


def test_a_complete_response_names_its_replica() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(piece(b"ab"))
        await send(piece(b"c", is_last=True))

    whole = asyncio.run(whole_answer(app, REQUEST, replica="r1"))

    assert (whole.replica, whole.status, whole.headers, whole.body) == ("r1", 200, ((b"a", b"b"),), b"abc")
