"""Bodies on their way: none is too large by itself, but thousands of them would be."""

from __future__ import annotations

import asyncio

from distilgpt2_api.core.errors import OverloadedError


class Uploads:
    """Bounds the bytes of all bodies that are on their way together; event loop only."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.num_bytes = 0
        self.parsing = asyncio.Semaphore(1)
        """Held while a long body is parsed."""

    def add(self, num_bytes: int) -> None:
        """Raises OverloadedError where there is no room for so many more; they count all the same."""
        self.num_bytes += num_bytes
        if self.num_bytes > self._max_bytes:
            raise OverloadedError("the service is overloaded: too many large bodies are on their way; try again later")

    def remove(self, num_bytes: int) -> None:
        self.num_bytes -= num_bytes
