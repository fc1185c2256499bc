"""Which key is whose, and the file that may change that while the service runs."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from distilgpt2_api.core.api_key import ApiKey, digest_of
from distilgpt2_api.core.caller import NO_LIMITS, Caller, CallerLimits
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.settings.key_file import is_open_to_others, read_key_file
from distilgpt2_api.settings.key_list import check_distinct

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0

Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[None]]
Signature: TypeAlias = tuple[int, int, int, int]


class KeyTable:
    """Finds a key's owner in a time that says nothing about the keys.

    A dictionary of digests, not a loop over all keys: a thousand of them cost what one does. How long a dictionary
    looks depends on its entries and on what is looked for, so what is looked for is hashed once more, with a secret of
    this process: nobody outside can choose a key to come near an entry.
    """

    def __init__(self, keys: Iterable[ApiKey], *, default_limits: CallerLimits = NO_LIMITS) -> None:
        self._secret = secrets.token_bytes(32)
        self._callers = {self._mark(key.digest): _caller_of(key, default_limits) for key in keys}

    def find(self, key: bytes) -> Caller | None:
        return self._callers.get(self._mark(digest_of(key)))

    def _mark(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._secret, digest_size=32).digest()


class KeyRing:
    """All keys, those of the setting and those of the file. Mutable: a changed file changes them, all at once."""

    def __init__(
        self, fixed: tuple[ApiKey, ...], *, file: Path | None = None, default_limits: CallerLimits = NO_LIMITS
    ) -> None:
        """Raises SettingsError where the file can't be read or says the same as the setting."""
        self._fixed = fixed
        self._file = file
        self._default_limits = default_limits
        self._signature = None if file is None else _signature_of(file)
        self._table = self._read()
        if file is not None and is_open_to_others(file):
            logger.warning("%s, the file of API keys, is open to every user of this machine: chmod o-rw", file)

    def find(self, key: bytes) -> Caller | None:
        return self._table.find(key)

    def refresh(self) -> None:
        """Read the file anew if it has changed. Reads from a disk, so it is for a thread.

        A file that is broken or gone changes nothing but the log: a slip of the editor must not lock everybody out.
        """
        if self._file is None:
            return
        signature = _signature_of(self._file)
        if signature == self._signature:
            return
        # From before reading: what changes meanwhile is seen the next time. And noted even of a broken file, which is
        # told once.
        self._signature = signature
        try:
            self._table = self._read()
        except SettingsError as error:
            logger.error("the API keys stay as they were: %s", error)  # noqa: TRY400 - its message is all there is
        else:
            logger.info("the API keys have been reloaded")

    async def watch(self) -> None:
        """Refresh for ever."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            await asyncio.to_thread(self.refresh)

    def watched(self, lifespan: Lifespan) -> Lifespan:
        """A lifespan in which the file is watched."""
        if self._file is None:
            return lifespan

        @asynccontextmanager
        async def watching(app: Any) -> AsyncGenerator[None]:
            task = asyncio.create_task(self.watch())
            try:
                async with lifespan(app):
                    yield
            finally:
                task.cancel()

        return watching

    def _read(self) -> KeyTable:
        keys = [*self._fixed]
        if self._file is not None:
            keys += read_key_file(self._file)
            try:
                check_distinct(keys)
            except ValueError as error:
                raise SettingsError(f"api_keys and the file of API keys {self._file}: {error}") from None
        return KeyTable(keys, default_limits=self._default_limits)


def _caller_of(key: ApiKey, default: CallerLimits) -> Caller:
    own = key.limits
    has_own_rate = own.tokens_per_s is not None
    limits = CallerLimits(
        max_requests=own.max_requests or default.max_requests,
        tokens_per_s=own.tokens_per_s or default.tokens_per_s,
        # A rate of its own with the default's burst would be neither's.
        burst_tokens=own.burst_tokens or (None if has_own_rate else default.burst_tokens),
        min_priority=own.min_priority,
    )
    return Caller(name=key.name, limits=limits, is_key=True)


def _signature_of(path: Path) -> Signature | None:
    """Changes whenever the file does; None: it can't be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
