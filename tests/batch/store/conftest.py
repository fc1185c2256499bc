"""A store in a temporary folder, a clock that stands still, and a worker with a fake model."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.batch.lines import Answer, InputLine
from distilgpt2_api.batch.store.batches import Batches
from distilgpt2_api.batch.store.factory import WorkLimits, build_batch_service
from distilgpt2_api.batch.store.files import Files
from distilgpt2_api.batch.store.leases import Leases
from distilgpt2_api.batch.store.objects import BatchStatus, NewBatch, StoredBatch, StoredFile, StoreLimits
from distilgpt2_api.batch.store.ports import BatchService
from distilgpt2_api.batch.store.store import Store, open_store
from distilgpt2_api.core.errors import InvalidRequestError

ENDPOINT = "/v1/completions"
LIMITS = StoreLimits(max_files=100, max_bytes=1 << 30, max_open_batches=100, expiry_s=30 * 86400.0)
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}


@dataclass
class Clock:
    now_s: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Observer:
    lines: list[tuple[int, int]] = field(default_factory=list)
    ended: list[BatchStatus] = field(default_factory=list)

    def on_lines(self, *, num_completed: int, num_failed: int) -> None:
        self.lines.append((num_completed, num_failed))

    def on_batch_ended(self, status: BatchStatus) -> None:
        self.ended.append(status)


@dataclass
class Answerer:
    """Answers a line with its prompt. Lines from number `held_from` on wait forever."""

    asked: list[str] = field(default_factory=list)
    callers: set[str] = field(default_factory=set)
    held_from: int | None = None
    on_ask: Callable[[InputLine], None] = lambda line: None
    num_in_flight: int = 0
    most_in_flight: int = 0

    async def __call__(self, caller: str, line: InputLine) -> Answer:
        self.asked.append(line.custom_id)
        self.callers.add(caller)
        self.num_in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.num_in_flight)
        try:
            self.on_ask(line)
            await asyncio.sleep(0)
            if self.held_from is not None and int(line.custom_id) >= self.held_from:
                await asyncio.Event().wait()
        finally:
            self.num_in_flight -= 1
        status = json.loads(line.body).get("status", 200)
        body = json.dumps({"said": json.loads(line.body).get("prompt"), "usage": USAGE}).encode()
        return Answer(status_code=status, request_id="request", body=body)


def input_lines(count: int, **body: object) -> bytes:
    return b"".join(
        json.dumps(
            {"custom_id": f"{number}", "method": "POST", "url": ENDPOINT, "body": {"prompt": number, **body}}
        ).encode()
        + b"\n"
        for number in range(count)
    )


def check_model(name: str) -> None:
    if name != "tiny":
        raise InvalidRequestError(f"the model {name!r} does not exist here", param="model")


class Scene:
    """One process's view of a store: the parts of a batch service, and shortcuts for tests."""

    def __init__(self, location: str, clock: Clock, *, limits: StoreLimits = LIMITS, **work: int) -> None:
        self.store: Store = open_store(location)
        self.clock = clock
        self.limits = limits
        self.files = Files(self.store, limits, clock)
        self.batches = Batches(self.store, limits, clock)
        self.answerer = Answerer()
        self.observer = Observer()
        self.work_limits = WorkLimits(
            **{"max_file_bytes": 1 << 20, "max_lines": 1000, "max_line_bytes": 1000, "max_lines_at_once": 8, **work}
        )

    def leases(self) -> Leases:
        return Leases(self.store, self.limits, self.clock)

    def lose_acknowledgments(self, monkeypatch: pytest.MonkeyPatch, *, every: int = 1) -> None:
        """From now on, one of `every` write commits succeeds but reports a lost connection to its caller."""
        dialect = self.store.engine.dialect
        commit = dialect.do_commit
        num_commits = count(1)

        def commit_unheard(connection: Any) -> None:
            commit(connection)
            if next(num_commits) % every == 0:
                error: Any = dialect.loaded_dbapi.OperationalError("the connection is gone")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error

        monkeypatch.setattr(dialect, "do_commit", commit_unheard)

    def upload(self, content: bytes, *, caller: str = "alice", expiry_s: float | None = None) -> StoredFile:
        file_id = self.files.begin(caller=caller)
        for begin in range(0, len(content), 1000):
            self.files.append(file_id, caller=caller, content=content[begin : begin + 1000])
        return self.files.finish(file_id, filename="input.jsonl", expiry_s=expiry_s)

    def create(self, content: bytes = b"", *, caller: str = "alice", **options: Any) -> StoredBatch:
        file = self.upload(content or input_lines(3), caller=caller)
        new = NewBatch(
            **{
                "caller": caller,
                "endpoint": ENDPOINT,
                "input_file_id": file.file_id,
                "metadata": None,
                "model": "tiny",
                "output_expiry_s": None,
                **options,
            }
        )
        return self.batches.create(new)

    def find(self, batch: StoredBatch) -> StoredBatch:
        return self.batches.find(batch.batch_id, caller=batch.caller)

    def read(self, file_id: str | None) -> list[dict[str, Any]]:
        """The lines of an output; empty without a file."""
        content = b"" if file_id is None else b"".join(self.files.chunks(file_id))
        return [json.loads(line) for line in content.split(b"\n")[:-1]]

    def open_batch_service(self) -> BatchService:
        """A batch service with a worker, which takes over this scene's connections."""
        return build_batch_service(
            self.store,
            self.answerer,
            check_model,
            self.observer,
            store_limits=self.limits,
            work_limits=self.work_limits,
            clock=self.clock,
        )

    def play(self, scenario: Callable[[BatchService], Awaitable[None]]) -> None:
        """Runs the scenario with a running worker, which is stopped at the end."""

        async def with_batch_service() -> None:
            batch_service = self.open_batch_service()
            batch_service.worker.start()
            try:
                async with asyncio.timeout(30):
                    await scenario(batch_service)
            finally:
                await batch_service.close()

        asyncio.run(with_batch_service())

    async def wait_for(self, batch: StoredBatch, is_so: Callable[[StoredBatch], bool]) -> StoredBatch:
        while not is_so(found := self.find(batch)):  # noqa: ASYNC110 - the store has no notifications
            await asyncio.sleep(0.01)
        return found

    async def wait_end(self, batch: StoredBatch) -> StoredBatch:
        return await self.wait_for(batch, lambda found: not found.is_open)

    def run(self, batch: StoredBatch) -> StoredBatch:
        """Runs a worker until the batch has ended."""

        async def until_end(_batch_service: BatchService) -> None:
            await self.wait_end(batch)

        self.play(until_end)
        return self.find(batch)


SceneBuilder = Callable[..., Scene]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def location(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def build_scene(location: str, clock: Clock) -> Iterator[SceneBuilder]:
    """Builds scenes, each another process's view of the same store."""
    scenes: list[Scene] = []

    def build(**options: Any) -> Scene:
        scenes.append(Scene(location, clock, **options))
        return scenes[-1]

    yield build
    for scene in scenes:
        scene.store.close()


@pytest.fixture
def scene(build_scene: SceneBuilder) -> Scene:
    return build_scene()


@pytest.fixture
def build_lines() -> Callable[..., bytes]:
    return input_lines
