"""Work on long texts: off the event loop, and bounded in memory."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from starlette.requests import ClientDisconnect

from distilgpt2_api.core.errors import OverloadedError
from distilgpt2_api.model.kernels.process_memory import release_free_memory
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

Result = TypeVar("Result")

INLINE_CHARACTERS = 8192
"""Texts up to this length are tokenized on the event loop: that takes a millisecond, too short to delay streams."""
LONG_CHARACTERS = 1 << 17
"""Longer texts fit no context. They have a queue of their own, so that ordinary prompts do not wait for them."""
MAX_UNBROKEN_BYTES = 1 << 20
"""Limit for text that cannot be split: it is tokenized whole, which takes 180 times as much memory."""
MAX_WAITING_CHARACTERS = 32 << 20


class TextQueue:
    """Bounds the work on all requests' texts together. Event loop only.

    One long text and one ordinary text run at a time. Each takes at most 25 MB for ASCII, four times that for the
    widest characters.
    """

    def __init__(self) -> None:
        self._ordinary = asyncio.Semaphore(1)
        self._long = asyncio.Semaphore(1)
        self._num_characters = 0

    async def run(
        self, work: Callable[[], Result], *, num_characters: int, is_gone: Callable[[], Awaitable[bool]]
    ) -> Result:
        """The result of `work`, which reads `num_characters`. Does not start work for a client that has hung up.

        Raises OverloadedError if too much is queued, ClientDisconnect, and the errors of `work`.
        """
        if num_characters <= INLINE_CHARACTERS:
            return work()
        if self._num_characters and self._num_characters + num_characters > MAX_WAITING_CHARACTERS:
            raise OverloadedError("the service is overloaded: too many long texts are queued; try again later")
        self._num_characters += num_characters
        is_long = num_characters > LONG_CHARACTERS
        try:
            async with self._long if is_long else self._ordinary:
                if await is_gone():
                    raise ClientDisconnect
                try:
                    result = await asyncio.to_thread(work)
                finally:
                    if is_long:
                        await asyncio.to_thread(release_free_memory)
                if await is_gone():
                    raise ClientDisconnect
                return result
        finally:
            self._num_characters -= num_characters


def encode_bounded(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, in bounded memory. Raises InvalidRequestError(param="prompt")."""
    return tokenizer.encode_batch(texts, max_unbroken_bytes=MAX_UNBROKEN_BYTES)


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Tokenizes the texts of one HTTP request."""

    tokenizer: Tokenizer
    queue: TextQueue
    is_gone: Callable[[], Awaitable[bool]]
    """Whether the request's client has hung up."""

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text. Raises InvalidRequestError(param="prompt"), and the errors of `run`."""
        return await self.run(partial(encode_bounded, self.tokenizer, texts), num_characters=sum(map(len, texts)))

    async def run(self, work: Callable[[], Result], *, num_characters: int) -> Result:
        """Like `TextQueue.run`, for this client."""
        return await self.queue.run(work, num_characters=num_characters, is_gone=self.is_gone)
