"""Clients that follow docs/clients.md, and count the endings of their requests.

They retry a request if no byte of its answer has arrived: the connection failed, or the answer is 503 (from a proxy
also 502 or 504), after its `Retry-After`. They never retry a stream that has begun, because a part of it has been
used.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MAX_TRIES = 5
TIMEOUT_S = 60
RETRIED = {502, 503, 504}
PAUSE_S = 0.5
"""Pause before a retry without `Retry-After`."""


class TryError(Exception):
    """A failed try. `has_begun`: a part of the answer had arrived."""

    def __init__(self, cause: str, *, has_begun: bool, pause_s: float = PAUSE_S) -> None:
        super().__init__(cause)
        self.cause = cause
        self.has_begun = has_begun
        self.pause_s = pause_s


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of requests by kind and ending. Protected by the load's lock."""

    num_requests: int = 0
    num_failed_at_first: int = 0
    """Requests that clients without retries would have lost."""
    num_failed: int = 0
    longest_s: float = 0.0
    causes: Counter[str] = field(default_factory=Counter)

    def row(self) -> str:
        causes = ", ".join(f"{num} x {cause}" for cause, num in self.causes.most_common()) or "-"
        counts = f"{self.num_requests:>8} {self.num_failed_at_first:>15} {self.num_failed:>12}"
        return f"{counts} {self.longest_s:>9.2f}  {causes}"


HEADER = f"{'requests':>8} {'without retries':>15} {'with retries':>12} {'longest s':>9}  what happened"


class Load:
    """Threads with whole answers and threads with streams, each with one request after the other until `stopped`."""

    def __init__(self, address: str, port: int, key: str, num_tokens: int) -> None:
        self._address = (address, port)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        self._num_tokens = num_tokens
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.whole = Tally()
        self.streamed = Tally()

    @contextmanager
    def running(self, *, num_whole: int, num_streamed: int) -> Iterator[None]:
        kinds = [False] * num_whole + [True] * num_streamed
        threads = [threading.Thread(target=self._run, args=(number, kind)) for number, kind in enumerate(kinds)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    def num_requests(self) -> int:
        with self._lock:
            return self.whole.num_requests + self.streamed.num_requests

    def _run(self, thread_number: int, is_stream: bool) -> None:
        number = 0
        while not self._stopped.is_set():
            number += 1
            body = {"prompt": f"Story {thread_number}-{number}:", "max_tokens": self._num_tokens, "ignore_eos": True}
            start_s = time.monotonic()
            causes, is_answered = self._ask_until_answered({**body, "stream": is_stream})
            with self._lock:
                tally = self.streamed if is_stream else self.whole
                tally.num_requests += 1
                tally.num_failed_at_first += bool(causes)
                tally.num_failed += not is_answered
                tally.longest_s = max(tally.longest_s, time.monotonic() - start_s)
                tally.causes.update(causes)

    def _ask_until_answered(self, body: dict[str, Any]) -> tuple[list[str], bool]:
        """Try a request; return the reasons of failed tries, in order, and whether a later try succeeded."""
        causes: list[str] = []
        for _ in range(MAX_TRIES):
            try:
                self._ask(body)
            except TryError as error:
                causes.append(error.cause)
                if error.has_begun:
                    break
                self._stopped.wait(error.pause_s)
            else:
                return causes, True
        return causes, False

    def _ask(self, body: dict[str, Any]) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=TIMEOUT_S)
        try:
            try:
                connection.request("POST", "/v1/completions", json.dumps(body), self._headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise TryError(type(error).__name__, has_begun=False) from None
            if response.status != http.client.OK:
                pause_s = float(response.headers.get("Retry-After", PAUSE_S))
                raise TryError(f"status {response.status}", has_begun=response.status not in RETRIED, pause_s=pause_s)
            try:
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise TryError(f"cut: {type(error).__name__}", has_begun=True) from None
        finally:
            connection.close()
        if not (_is_whole_stream(content) if body["stream"] else _is_whole(content, self._num_tokens)):
            raise TryError("not a whole answer", has_begun=True)


def _is_whole(content: bytes, num_tokens: int) -> bool:
    answer = json.loads(content)
    return bool(answer["choices"][0]["text"]) and answer["usage"]["completion_tokens"] == num_tokens


def _is_whole_stream(content: bytes) -> bool:
    return content.rstrip().endswith(b"data: [DONE]") and b'"finish_reason":"length"' in content.replace(b" ", b"")
