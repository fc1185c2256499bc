"""Work on long texts: how much runs at once, and for which clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from starlette.requests import ClientDisconnect

from distilgpt2_api.core.errors import OverloadedError
from distilgpt2_api.server.generation.text_work import (
    INLINE_CHARACTERS,
    LONG_CHARACTERS,
    MAX_WAITING_CHARACTERS,
    TextQueue,
)

LONG = LONG_CHARACTERS + 1
ORDINARY = LONG_CHARACTERS


async def is_there() -> bool:
    return False


class Works:
    """Gated pieces of work, and the number that ran at once."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.running: set[str] = set()
        self.most: dict[str, int] = {}
        self.begun: list[str] = []

    def work(self, name: str) -> str:
        kind = name[0]
        self.running.add(name)
        self.begun.append(name)
        self.most[kind] = max(self.most.get(kind, 0), sum(other[0] == kind for other in self.running))
        self.gate.acquire(timeout=20)
        self.running.remove(name)
        return name


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), 20)

    asyncio.run(bounded())


@pytest.mark.reported("an attack with twenty long texts at once, which took two gigabytes")
def test_one_long_text_runs_at_a_time_and_does_not_delay_ordinary_ones() -> None:
    works = Works()

    async def scenario() -> None:
        queue = TextQueue()
        tasks = [
            asyncio.create_task(queue.run(partial(works.work, name), num_characters=size, is_gone=is_there))
            for name, size in [(f"l{index}", LONG) for index in range(4)]
            + [(f"o{index}", ORDINARY) for index in range(4)]
        ]
        for _ in tasks:
            works.gate.release()
        assert await asyncio.gather(*tasks) == ["l0", "l1", "l2", "l3", "o0", "o1", "o2", "o3"]

    run(scenario)
    assert works.most == {"l": 1, "o": 1}


def test_short_texts_are_not_queued() -> None:
    async def scenario() -> None:
        queue, works = TextQueue(), Works()
        long = asyncio.create_task(queue.run(partial(works.work, "l"), num_characters=LONG, is_gone=is_there))
        work = threading.get_ident
        assert await queue.run(work, num_characters=INLINE_CHARACTERS, is_gone=is_there) == threading.get_ident()
        assert await queue.run(work, num_characters=ORDINARY, is_gone=is_there) != threading.get_ident()
        works.gate.release()
        await long

    run(scenario)


@pytest.mark.reported("an attack by clients that hang up while their texts wait")
def test_work_for_a_disconnected_client_is_not_started() -> None:
    async def is_gone() -> bool:
        return True

    async def scenario() -> None:
        with pytest.raises(ClientDisconnect):
            await TextQueue().run(lambda: pytest.fail("the work must not start"), num_characters=LONG, is_gone=is_gone)

    run(scenario)


def test_queued_texts_are_bounded_in_total() -> None:
    """A single text is always accepted. Finished work frees its share, even if it failed."""

    def fail() -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        queue, works = TextQueue(), Works()
        huge = MAX_WAITING_CHARACTERS + 1
        with pytest.raises(ZeroDivisionError):
            await queue.run(fail, num_characters=huge, is_gone=is_there)
        first = asyncio.create_task(queue.run(partial(works.work, "l"), num_characters=huge, is_gone=is_there))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="too many long texts"):
            await queue.run(partial(works.work, "o"), num_characters=ORDINARY, is_gone=is_there)
        works.gate.release()
        assert await first == "l"
        works.gate.release()
        assert await queue.run(partial(works.work, "o"), num_characters=ORDINARY, is_gone=is_there) == "o"

    run(scenario)


@pytest.mark.reported("a reviewer, who hung up on a long text and found a 200 in the log")
def test_a_client_that_disconnects_during_its_work_gets_no_answer() -> None:
    async def scenario() -> None:
        asked = 0

        async def has_left_since() -> bool:
            nonlocal asked
            asked += 1
            return asked > 1

        with pytest.raises(ClientDisconnect):
            await TextQueue().run(lambda: "done", num_characters=LONG, is_gone=has_left_since)

    run(scenario)
