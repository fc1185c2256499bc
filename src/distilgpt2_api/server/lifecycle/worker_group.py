"""State that the workers of one Gunicorn master share with it, and the signals that the master gets."""

import mmap
import signal
from types import FrameType

SHUTDOWN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

AGE_BYTES = 8
SERVICE_ENDING = AGE_BYTES
EXIT_DEMANDED = AGE_BYTES + 1


class WorkerGroup:
    """One page of memory, mapped before the fork. Mutable; the master also keeps its earlier signal handlers here."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._masters_handlers: dict[int, object] = {}
        self._is_told_to_end = False

    @property
    def youngest_age(self) -> int:
        """Number of the last started worker: the master counts them."""
        return int.from_bytes(self._page[:AGE_BYTES], "little")

    @property
    def is_service_ending(self) -> bool:
        return self._page[SERVICE_ENDING] != 0

    @property
    def is_exit_demanded(self) -> bool:
        """The master was interrupted while the service was ending: workers exit without completing their requests."""
        return self._page[EXIT_DEMANDED] != 0

    def record_start(self, age: int) -> None:
        """The master starts a worker, so the service goes on, unless the master has been told to end."""
        self._page[:AGE_BYTES] = age.to_bytes(AGE_BYTES, "little")
        self._page[SERVICE_ENDING] = self._is_told_to_end

    def announce_service_end(self) -> None:
        self._page[SERVICE_ENDING] = 1

    def watch_signals(self) -> None:
        """In the master: note signals that Gunicorn handles later or ignores. Idempotent.

        While it reloads, it handles none before the old workers end: those learn here that the service ends. While it
        waits for its workers, it ignores a second interrupt, which `docker run` without a terminal sends only to it.
        """
        if not self._masters_handlers:
            for number in SHUTDOWN_SIGNALS:
                self._masters_handlers[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._is_told_to_end:
            self._page[EXIT_DEMANDED] = 1
        self._is_told_to_end = True
        self.announce_service_end()
        handler = self._masters_handlers[number]
        if callable(handler):
            handler(number, frame)
