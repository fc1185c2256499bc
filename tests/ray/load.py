"""Clients that send requests without pause, and the outcome of each request."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """The outcome of one request."""

    kind: str
    """`whole`: a complete response. `event`: the stream ended with an error event. `status 503` and similar. `cut`: the
    connection was closed."""
    num_bytes: int = 0
    duration_s: float = 0.0


@dataclass
class Load:
    """N clients, each sending one request after another until the end; half of them stream. A context manager."""

    url: str
    num_clients: int
    num_tokens: int
    outcomes: list[Outcome] = field(default_factory=list)
    _ending: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self.num_clients)
        self._work = [self._pool.submit(self._ask, number) for number in range(self.num_clients)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        self._pool.shutdown()
        for work in self._work:
            work.result()

    @property
    def kinds(self) -> Counter[str]:
        return Counter(outcome.kind for outcome in self.outcomes)

    def _ask(self, number: int) -> None:
        while not self._ending.is_set():
            # In pairs: with round-robin routing, one of two replicas would otherwise get all streams.
            self.outcomes.append(ask(self.url, is_stream=number % 4 < 2, num_tokens=self.num_tokens))


def ask(url: str, *, is_stream: bool, num_tokens: int, **options: Any) -> Outcome:
    """Sends one request and reads the response to its end."""
    body = {"prompt": "once", "max_tokens": num_tokens, "ignore_eos": True, "stream": is_stream, **options}
    began_s = time.monotonic()
    content = b""
    try:
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=TIMEOUT_S) as response:
            for piece in response.iter_bytes():
                content += piece
        kind = _kind(response.status_code, content, is_stream=is_stream)
    except httpx.TransportError:
        kind = "cut"
    return Outcome(kind, len(content), time.monotonic() - began_s)


def _kind(status: int, content: bytes, *, is_stream: bool) -> str:
    if status != 200:
        return f"status {status}"
    if not is_stream:
        return "whole" if json.loads(content)["choices"] else "empty"
    last = content.rstrip().split(b"\n\n")[-1].removeprefix(b"data: ")
    if last == b"[DONE]":
        return "whole"
    return "event" if json.loads(last)["error"]["code"] == "unavailable" else "another end"
