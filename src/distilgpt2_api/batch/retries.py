"""Retries after a temporary refusal, which is no answer to a line."""

import asyncio
from collections.abc import Awaitable, Callable

from distilgpt2_api.batch.lines import Answer
from distilgpt2_api.core.errors import DrainingError, EngineFailedError, UnavailableError

FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 5.0


async def ask_until_answered(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Calls `ask` until it returns. After UnavailableError, waits for the error's `retry_after_s`, but at least for an
    exponential backoff.

    DrainingError and EngineFailedError are raised: this process can't answer any more.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return await ask()
        except (DrainingError, EngineFailedError):
            raise
        except UnavailableError as error:
            await asyncio.sleep(max(error.retry_after_s, pause_s))
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
