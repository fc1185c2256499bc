"""A service without kernels: the real application, engine thread and scheduler over a scripted runner."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import structlog
import tokenizers
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.routing import BaseRoute
from tests.scripted_runner import ENGINE_CONFIG, ScriptedRunner
from tokenizers import decoders, models, pre_tokenizers

from distilgpt2_api.batch.store.factory import WorkLimits, build_batch_service
from distilgpt2_api.batch.store.objects import StoreLimits
from distilgpt2_api.batch.store.ports import OpenBatchService
from distilgpt2_api.batch.store.store import Store, open_store
from distilgpt2_api.core.plan import StepPlan
from distilgpt2_api.core.sampling_defaults import NO_DEFAULTS, SamplingDefaults
from distilgpt2_api.engine.admission import Admission
from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.observability.engine_metrics import EngineMetrics
from distilgpt2_api.observability.traces import Traces
from distilgpt2_api.scheduling.scheduler import Scheduler
from distilgpt2_api.server.app import PROTOCOLS, build_routes, create_app
from distilgpt2_api.server.auth.access import OPEN, Access
from distilgpt2_api.server.http.limits import RequestLimits
from distilgpt2_api.server.http.routing.protocol import Protocols
from distilgpt2_api.server.service import ServedModel
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate
from distilgpt2_api.text.structured_output.grammars import GrammarCompiler
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer
from distilgpt2_api.usage.key_usage import KeyUsage


def byte_tokenizer() -> tokenizers.Tokenizer:
    """Token i is byte i; 256 is the end of text."""
    alphabet = _byte_alphabet()
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab={alphabet[byte]: byte for byte in range(256)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def _byte_alphabet() -> list[str]:
    """GPT-2's `bytes_to_unicode`."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(byte_tokenizer())


@dataclass(kw_only=True)
class Scene:
    """An application and the parts below it."""

    app: FastAPI
    engine: AsyncEngine
    engines: list[Engine]
    runner: ScriptedRunner
    log: structlog.testing.CapturingLogger


SceneBuilder = Callable[..., Scene]


@pytest.fixture(scope="session")
def routes() -> Sequence[BaseRoute]:
    return build_routes()


@pytest.fixture
def build_scene(tokenizer: Tokenizer) -> SceneBuilder:
    def build(
        *,
        runner: ScriptedRunner | None = None,
        on_load: Callable[[], None] = lambda: None,
        max_waiting_requests: int = 8,
        model_name: str = "organisation/tiny",
        served_names: tuple[str, ...] = (),
        root_path: str = "",
        chat_template: ChatTemplate | None = None,
        sampling_defaults: SamplingDefaults = NO_DEFAULTS,
        drain_s: float = 1.0,
        access: Access = OPEN,
        on_failure: Callable[[Exception], None] | None = None,
        traces: Traces | None = None,
        open_batch_service: OpenBatchService | None = None,
        usage: KeyUsage | None = None,
        protocols: Protocols = PROTOCOLS,
        max_draft_tokens: int = 0,
        tokenizer: Tokenizer = tokenizer,
        **limits: Any,
    ) -> Scene:
        runner = runner or ScriptedRunner()
        registry = CollectorRegistry()
        metrics = EngineMetrics(registry)
        engines: list[Engine] = []

        def load() -> Engine:
            on_load()
            scheduler = Scheduler(replace(ENGINE_CONFIG, max_draft_tokens=max_draft_tokens), num_blocks=64)
            grammars = GrammarCompiler(
                tokenizer, vocab_size=runner.config.vocab_size, eos_token_ids=runner.config.eos_token_ids
            )
            engines.append(
                Engine(runner=runner, scheduler=scheduler, tokenizer=tokenizer, grammars=grammars, observer=metrics)
            )
            return engines[0]

        engine = AsyncEngine(
            load,
            admission=Admission(max_waiting_requests=max_waiting_requests, max_waiting_tokens=100_000),
            on_failure=on_failure,
        )
        log = structlog.testing.CapturingLogger()
        bounds = {
            "max_body_bytes": 65536,
            "max_uploads_bytes": 1 << 20,
            "body_timeout_s": 30.0,
            "max_prompts": 8,
            "max_n": 4,
            "max_logprobs": 5,
            "max_stop_sequences": 4,
            "timeout_s": 60.0,
        }
        app = create_app(
            engine=engine,
            model=ServedModel(name=model_name, precision="f32", created=1, kernels="script", served_names=served_names),
            limits=RequestLimits(**{**bounds, **limits}),
            registry=registry,
            engine_metrics=metrics,
            access_log=log,
            drain_s=drain_s,
            traces=traces,
            access=access,
            root_path=root_path,
            chat_template=chat_template,
            sampling_defaults=sampling_defaults,
            draw_seed=lambda: 7,
            clock=lambda: 1_700_000_000.5,
            protocols=protocols,
            open_batch_service=open_batch_service,
            usage=usage,
        )
        return Scene(app=app, engine=engine, engines=engines, runner=runner, log=log)

    return build


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(str(tmp_path / "store"))
    yield store
    store.close()


@pytest.fixture
def open_batch_service(store: Store) -> OpenBatchService:
    return partial(
        build_batch_service,
        store,
        store_limits=StoreLimits(max_files=20, max_bytes=30_000, max_open_batches=2, expiry_s=1e9),
        work_limits=WorkLimits(max_file_bytes=20_000, max_lines=100, max_line_bytes=1000, max_lines_at_once=4),
    )


class Client:
    """A synchronous in-process client of an application with its lifespan. Its event loop runs only during calls."""

    def __init__(self, scene: Scene, *, is_loaded: bool = True) -> None:
        self.scene = scene
        self.runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._is_loaded = is_loaded

    def __enter__(self) -> Self:
        self.runner.__enter__()
        self.runner.run(self._enter())
        return self

    async def _enter(self) -> None:
        lifespan: AbstractAsyncContextManager[Any] = self.scene.app.router.lifespan_context(self.scene.app)
        await self._stack.enter_async_context(lifespan)
        transport = httpx.ASGITransport(self.scene.app, raise_app_exceptions=False)
        self._http = await self._stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://test")
        )
        if self._is_loaded:
            await self.scene.engine.wait_loaded()

    def __exit__(self, *error: object) -> None:
        self.runner.run(self._stack.aclose())
        self.runner.__exit__(None, None, None)

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        return self.runner.run(self._http.request(method, url, **options))

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> httpx.Response:
        return self.request("POST", url, **options)

    def complete(self, **body: Any) -> httpx.Response:
        return self.post("/v1/completions", json=body)

    def stream(self, **body: Any) -> list[dict[str, Any]]:
        """The stream's objects, without the last `[DONE]`."""
        answer = self.complete(stream=True, **body)
        assert answer.status_code == 200, answer.text
        events = answer.text.split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


@pytest.fixture
def open_client(build_scene: SceneBuilder) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def opened(scene: Scene | None = None, *, is_loaded: bool = True, **options: Any) -> Client:
        client = Client(scene or build_scene(**options), is_loaded=is_loaded)
        clients.append(client.__enter__())
        return client

    yield opened
    for client in reversed(clients):  # each restores the signal handlers that it found
        client.scene.runner.open_gate()
        client.__exit__()


@pytest.fixture
def client(open_client: Callable[..., Client]) -> Client:
    return open_client()


@pytest.fixture
def build_runner() -> Callable[..., ScriptedRunner]:
    return ScriptedRunner


@dataclass
class Call:
    """One request in plain ASGI: the sent messages, and a client that can disconnect."""

    app: FastAPI
    path: str
    method: str = "GET"
    body: bytes = b""
    raw_path: bytes | None = None
    query: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    root_path: str = ""
    client: tuple[str, int] | None = ("127.0.0.1", 1)
    sent: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    has_read_body: bool = False

    async def run(self) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode() if self.raw_path is None else self.raw_path,
            "root_path": self.root_path,
            "query_string": self.query,
            "headers": [(b"host", b"test"), *self.headers],
            "client": self.client,
            "server": ("test", 80),
        }
        await self.app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if not self.has_read_body:
            self.has_read_body = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        async with self.changed:
            self.sent.append(message)
            self.changed.notify_all()

    async def wait_for(self, is_so: Callable[[list[dict[str, Any]]], bool]) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: is_so(self.sent))

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()


@pytest.fixture
def build_call() -> Callable[..., Call]:
    return Call


@pytest.fixture
def hang_up() -> Callable[..., Call]:
    """Sends a body to a gated runner's application, disconnects during a step, and checks that it aborts."""

    def leave(client: Client, path: str, *, method: str = "POST", **body: object) -> Call:
        engine, runner = client.scene.engine, client.scene.runner
        headers = [(b"content-type", b"application/json")]
        call = Call(client.scene.app, path, method, json.dumps(body).encode(), headers=headers)

        async def play() -> None:
            loop = asyncio.get_running_loop()
            running = asyncio.Event()

            def note_step(_plan: StepPlan) -> None:
                loop.call_soon_threadsafe(running.set)

            runner.on_run = note_step
            task = asyncio.create_task(call.run())
            runner.gate.release()
            await running.wait()
            call.gone.set()
            await asyncio.wait_for(task, 10)
            assert engine.num_requests == 0
            runner.open_gate()

        client.runner.run(play())
        return call

    return leave
