"""API keys and their callers, and the key file, which may change while the service runs."""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from distilgpt2_api.core.caller import NO_LIMITS, ApiKey, Caller, CallerLimits, digest_of
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.settings.key_file import is_open_to_others, read_key_file
from distilgpt2_api.settings.key_list import check_distinct

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0

Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[None]]
Signature: TypeAlias = tuple[int, int, int, int]
Clock: TypeAlias = Callable[[], datetime]

utc_now: Clock = partial(datetime.now, UTC)


class KeyTable:
    """Finds a key's caller in a time that reveals nothing about the keys.

    A dictionary of digests: a lookup costs the same with one key and with a thousand. Its time depends on the entries
    and the looked-up value, so digests are hashed again with a secret of this process. A client therefore can't choose
    a key that lies close to an entry.
    """

    def __init__(
        self, keys: Iterable[ApiKey], *, default_limits: CallerLimits = NO_LIMITS, clock: Clock = utc_now
    ) -> None:
        self._secret = secrets.token_bytes(32)
        self._keys = {self._keyed_digest(key.digest): (key, _caller_of(key, default_limits)) for key in keys}
        self._clock = clock
        self.limits = {caller.name: caller.limits for _, caller in self._keys.values()}
        """By the key's name, in order. Read-only for others."""

    def find(self, key: bytes) -> Caller | None:
        """None: there is no such key, or it has expired."""
        found = self._keys.get(self._keyed_digest(digest_of(key)))
        return None if found is None or found[0].is_expired(self._clock()) else found[1]

    def _keyed_digest(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._secret, digest_size=32).digest()


class KeyRing:
    """All keys of the setting and the file. Mutable: a changed file replaces all its keys at once."""

    def __init__(
        self,
        fixed: tuple[ApiKey, ...],
        *,
        file: Path | None = None,
        default_limits: CallerLimits = NO_LIMITS,
        clock: Clock = utc_now,
    ) -> None:
        """Raises SettingsError if the file can't be read or repeats a key or name of the setting."""
        self._fixed = fixed
        self._file = file
        self._default_limits = default_limits
        self._clock = clock
        self._signature = None if file is None else _signature_of(file)
        self._table = self._read()
        self._warn_if_open()

    def find(self, key: bytes) -> Caller | None:
        return self._table.find(key)

    @property
    def names(self) -> Sequence[str]:
        return [*self._table.limits]

    def limits_of(self, name: str) -> CallerLimits:
        """No limits for a key that has been removed."""
        return self._table.limits.get(name, NO_LIMITS)

    def refresh(self) -> None:
        """Reload the file if it has changed. Blocks on the disk, so call it on a thread.

        If the file is invalid or missing, the keys stay as they are, and the log says so: a typing error must not lock
        all clients out.
        """
        if self._file is None:
            return
        signature = _signature_of(self._file)
        if signature == self._signature:
            return
        # Taken before reading, so that a change meanwhile is seen next time. Kept for an invalid file too, which is
        # reported once.
        self._signature = signature
        try:
            self._table = self._read()
        except SettingsError as error:
            logger.error("the API keys are unchanged: %s", error)  # noqa: TRY400 - its message is all there is
        else:
            logger.info("the API keys have been reloaded")
            self._warn_if_open()

    def _warn_if_open(self) -> None:
        if self._file is not None and is_open_to_others(self._file):
            logger.warning("every user of this machine can access %s, the file of API keys: chmod o-rw", self._file)

    async def watch(self) -> None:
        """Refresh until cancelled."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            await asyncio.to_thread(self.refresh)

    def watched(self, lifespan: Lifespan) -> Lifespan:
        """The lifespan, with the file watched while it lasts."""
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
        return KeyTable(keys, default_limits=self._default_limits, clock=self._clock)


def _caller_of(key: ApiKey, default: CallerLimits) -> Caller:
    own = key.limits
    has_own_rate = own.tokens_per_s is not None
    limits = CallerLimits(
        max_requests=own.max_requests or default.max_requests,
        tokens_per_s=own.tokens_per_s or default.tokens_per_s,
        # The default burst does not fit a rate of its own.
        burst_tokens=own.burst_tokens or (None if has_own_rate else default.burst_tokens),
        tokens_per_day=own.tokens_per_day or default.tokens_per_day,
        tokens_per_month=own.tokens_per_month or default.tokens_per_month,
        min_priority=own.min_priority,
    )
    return Caller(name=key.name, limits=limits, is_key=True)


def _signature_of(path: Path) -> Signature | None:
    """Changes when the file changes. None: the file can't be accessed."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
