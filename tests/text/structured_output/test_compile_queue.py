"""The compile queue: one call for all its waiters, and a bound on different calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from distilgpt2_api.core.errors import DrainingError, OverloadedError
from distilgpt2_api.text.structured_output.compile_queue import CompileQueue

TIMEOUT_S = 10.0


class Compiler:
    """Calls wait until they are released; those of `bad` fail."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.has_begun = threading.Event()
        self.is_let_go = threading.Event()

    def __call__(self, key: str) -> str:
        self.begun.append(key)
        self.has_begun.set()
        assert self.is_let_go.wait(TIMEOUT_S)
        if key == "bad":
            raise ValueError(key)
        return key.upper()


def play(scenario: Callable[[CompileQueue[str, str], Compiler], Awaitable[None]]) -> Compiler:
    compiler = Compiler()

    async def run() -> None:
        queue = CompileQueue(compiler, max_pending=2, too_many="too many")
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await scenario(queue, compiler)
        finally:
            compiler.is_let_go.set()
            queue.close()

    asyncio.run(run())
    return compiler


async def begin(queue: CompileQueue[str, str], *keys: str) -> list[asyncio.Task[str]]:
    waiting = [asyncio.ensure_future(queue.get(key)) for key in keys]
    await asyncio.sleep(0)  # all of them wait
    return waiting


def test_waiters_for_the_same_key_share_one_call() -> None:
    async def scenario(queue: CompileQueue[str, str], compiler: Compiler) -> None:
        waiting = await begin(queue, *["a"] * 100)
        compiler.is_let_go.set()
        assert await asyncio.gather(*waiting) == ["A"] * 100

    assert play(scenario).begun == ["a"]


def test_different_calls_are_bounded_and_a_finished_one_makes_room() -> None:
    async def scenario(queue: CompileQueue[str, str], compiler: Compiler) -> None:
        waiting = await begin(queue, "a", "b", "a", "b")
        with pytest.raises(OverloadedError, match="too many"):
            await queue.get("c")
        compiler.is_let_go.set()
        await asyncio.gather(*waiting)
        assert await queue.get("c") == "C"

    assert play(scenario).begun == ["a", "b", "c"]


def test_a_cancelled_waiter_does_not_cancel_the_call() -> None:
    async def scenario(queue: CompileQueue[str, str], compiler: Compiler) -> None:
        first, second, third = await begin(queue, "a", "a", "a")
        first.cancel()
        third.cancel()
        await asyncio.sleep(0)
        compiler.is_let_go.set()
        assert await second == "A"
        assert (first.cancelled(), third.cancelled()) == (True, True)

    assert play(scenario).begun == ["a"]


def test_the_last_waiter_to_leave_cancels_the_call_and_makes_room() -> None:
    async def scenario(queue: CompileQueue[str, str], compiler: Compiler) -> None:
        (running,) = await begin(queue, "a")
        assert await asyncio.to_thread(compiler.has_begun.wait, TIMEOUT_S)
        left = await begin(queue, "b", "b")
        for one in left:
            one.cancel()
        await asyncio.wait(left)
        (other,) = await begin(queue, "c")
        compiler.is_let_go.set()
        assert (await running, await other) == ("A", "C")

    assert play(scenario).begun == ["a", "c"]


def test_an_error_reaches_all_waiters_and_the_next_request_calls_again() -> None:
    async def scenario(queue: CompileQueue[str, str], compiler: Compiler) -> None:
        compiler.is_let_go.set()
        ends = await asyncio.gather(*await begin(queue, "bad", "bad"), return_exceptions=True)
        assert [type(end) for end in ends] == [ValueError, ValueError]
        with pytest.raises(ValueError, match="bad"):
            await queue.get("bad")

    assert play(scenario).begun == ["bad", "bad"]


def test_waiters_of_a_closed_queue_get_an_error_and_are_not_cancelled() -> None:
    """A task that is cancelled unexpectedly would end without an answer."""

    async def scenario(queue: CompileQueue[str, str], compiler: Compiler) -> None:
        (running,) = await begin(queue, "a")
        assert await asyncio.to_thread(compiler.has_begun.wait, TIMEOUT_S)
        (waiting,) = await begin(queue, "b")
        await asyncio.to_thread(queue.close)
        with pytest.raises(DrainingError):
            await waiting
        with pytest.raises(DrainingError):
            await queue.get("a")
        compiler.is_let_go.set()
        assert await running == "A"

    assert play(scenario).begun == ["a"]
