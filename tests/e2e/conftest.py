"""Real servers on a free loopback port, with a tiny random model: all but the weights is what users get."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tokenizers
from prometheus_client.parser import text_string_to_metric_families
from safetensors.numpy import save_file
from tokenizers import decoders, models, pre_tokenizers

NUM_POSITIONS = 16384
WIDTH = 32
VOCAB_SIZE = 257
DEADLINE_S = 30.0

COMMANDS = {
    "gunicorn": ["gunicorn", "distilgpt2_api.api:app", "--worker-class", "distilgpt2_api.worker.Worker"],
    "gunicorn-plain": ["gunicorn", "distilgpt2_api.api:app", "--worker-class", "uvicorn_worker.UvicornWorker"],
    "gunicorn-preload": [
        "gunicorn",
        "distilgpt2_api.api:app",
        "--worker-class",
        "distilgpt2_api.worker.Worker",
        "--preload",
    ],
    "uvicorn": ["uvicorn", "distilgpt2_api.api:app", "--host", "127.0.0.1", "--port", "0"],
    "uvicorn-h11": ["uvicorn", "distilgpt2_api.api:app", "--host", "127.0.0.1", "--port", "0", "--http", "h11"],
    "serve": ["distilgpt2_api", "serve", "--host", "127.0.0.1", "--port", "0"],
    "image": [
        "gunicorn",
        "distilgpt2_api.api:app",
        "--worker-class",
        "distilgpt2_api.worker.Worker",
        "--config",
        str(Path(__file__).parents[2] / "docker" / "gunicorn.conf.py"),
    ],
}
"""`image`: the image's CMD. It logs no address."""
GUNICORN_OPTIONS = ["--workers", "1", "--bind", "127.0.0.1:0", "--no-control-socket", "--worker-tmp-dir", "/dev/shm"]


def eventually(is_so: Callable[[], Any], what: str, *, deadline_s: float = DEADLINE_S, interval_s: float = 0.01) -> Any:
    """The first true value of `is_so`, polled until the deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if value := is_so():
            return value
        time.sleep(interval_s)
    raise AssertionError(f"not within {deadline_s:g} s: {what}")


def write_model(folder: Path, *, num_positions: int = NUM_POSITIONS, end_logit: float = 0.0) -> Path:
    """GPT-2 with random weights; token i is byte i, 256 is the end of text.

    With an `end_logit` of 5 most texts end after a few tokens, unless a parameter prevents it.
    """
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    tensors = {"wte.weight": normal(VOCAB_SIZE, WIDTH), "wpe.weight": normal(num_positions, WIDTH)}
    for layer in range(2):
        for name, num_in, num_out in (
            ("attn.c_attn", WIDTH, 3 * WIDTH),
            ("attn.c_proj", WIDTH, WIDTH),
            ("mlp.c_fc", WIDTH, 4 * WIDTH),
            ("mlp.c_proj", 4 * WIDTH, WIDTH),
        ):
            tensors[f"h.{layer}.{name}.weight"] = normal(num_in, num_out)
            tensors[f"h.{layer}.{name}.bias"] = normal(num_out)
    for norm in ("h.0.ln_1", "h.0.ln_2", "h.1.ln_1", "h.1.ln_2", "ln_f"):
        tensors[f"{norm}.weight"] = np.ones(WIDTH, np.float32)
        tensors[f"{norm}.bias"] = np.zeros(WIDTH, np.float32)
    if end_logit:
        end = np.eye(WIDTH, dtype=np.float32)[0]
        tensors["wte.weight"][-1], tensors["ln_f.bias"] = end, end_logit * end
    save_file(tensors, folder / "model.safetensors")
    config = {
        "model_type": "gpt2",
        "vocab_size": VOCAB_SIZE,
        "n_positions": num_positions,
        "n_embd": WIDTH,
        "n_layer": 2,
        "n_head": 2,
        "activation_function": "gelu_new",
        "bos_token_id": 256,
        "eos_token_id": 256,
    }
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    vocabulary = {chr(byte) if byte in printable else chr(next(others)): byte for byte in range(256)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))


@dataclass
class Service:
    """A client of the service at a URL."""

    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=DEADLINE_S, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=DEADLINE_S, **options)

    def complete(self, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/completions", json=body, timeout=DEADLINE_S)

    def stream(self, **body: Any) -> contextlib.AbstractContextManager[httpx.Response]:
        body = {"prompt": "once", "stream": True, "ignore_eos": True, **body}
        return httpx.stream("POST", f"{self.url}/v1/completions", json=body, timeout=DEADLINE_S)

    def metric(self, name: str, **labels: str) -> float:
        lines = [line for line in self.get("/metrics").text.splitlines() if line.startswith(name)]
        samples = (
            sample
            for family in text_string_to_metric_families("\n".join(lines))
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
        return sum(sample.value for sample in samples)


@dataclass
class Server(Service):
    """A server's process, its log and a client of it."""

    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_listening(self) -> None:
        def find() -> re.Match[str] | None:
            assert self.process.poll() is None, self.log
            return re.search(r"https?://127\.0\.0\.1:\d+", self.log)

        self.url = eventually(find, "the server listens")[0]

    def wait_ready(self) -> None:
        """The log is read first: a request takes longer, also from the server that is still starting."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.log
            if "serving" not in self.log:
                return False
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{self.url}/readyz").status_code == 200
            return False

        try:
            eventually(is_ready, "the server is ready")
        except AssertionError as error:
            error.add_note(f"its log:\n{self.log}")
            raise

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_exit(self) -> int:
        return self.process.wait(DEADLINE_S)


def events_of(response: httpx.Response) -> Iterator[Any]:
    """The stream's objects as they arrive; `[DONE]` as a text."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            text = line.removeprefix("data: ")
            yield text if text == "[DONE]" else json.loads(text)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The default suite has each test with the first of its ways to start; the others are slow repetitions."""
    first: dict[str, str] = {}
    for item in items:
        if isinstance(item, pytest.Function) and (kind := _kind_of(item)) is not None:
            test = item.nodeid.partition("[")[0]
            if first.setdefault(test, kind) != kind:
                item.add_marker(pytest.mark.servers)


def _kind_of(item: pytest.Function) -> str | None:
    """The way to start that a parameter of this folder's test names."""
    if not hasattr(item, "callspec") or not item.path.is_relative_to(Path(__file__).parent):
        return None
    words = item.callspec.id.split("-")
    return next((kind for kind in sorted(COMMANDS, key=len, reverse=True) if set(kind.split("-")) <= set(words)), None)


@pytest.fixture(scope="session", autouse=True)
def no_certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test needs root certificates, on whose loading each httpx client would spend 30 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSL_CERT_FILE", raising=False)
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
        yield


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny"))


@dataclass
class Launcher:
    """Starts a server of one of the kinds in `COMMANDS`, with settings."""

    model_folder: Path
    folders: pytest.TempPathFactory
    servers: list[Server] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._homes = {f"{name}home": self.folders.mktemp(f"{name}home") for name in ("", "cache_")}

    def __call__(self, kind: str = "gunicorn", **settings: object) -> Server:
        chosen = {"model": self.model_folder, "precision": "f32", "num_threads": 1, **self._homes, **settings}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTILGPT2_")}
        environment |= {f"DISTILGPT2_{name.upper()}": str(value) for name, value in chosen.items()}
        environment |= {"HOST": "127.0.0.1", "PORT": "0"} if kind == "image" else {"PORT": ""}
        log_file = self.folders.mktemp("log") / "log"
        command = [sys.executable, "-m", *COMMANDS[kind]]
        if kind.startswith("gunicorn"):
            command += GUNICORN_OPTIONS
        with log_file.open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        self.servers.append(Server("", process, log_file))
        return self.servers[-1]

    def end(self, begin: int = 0) -> None:
        """Send SIGTERM to the servers from number `begin` on that still run."""
        for server in self.servers[begin:]:
            if server.process.poll() is None:
                server.process.terminate()


@pytest.fixture(scope="session")
def launch(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    launcher = Launcher(model_folder, tmp_path_factory)
    yield launcher
    launcher.end()
    for server in launcher.servers:
        server.process.wait(DEADLINE_S)


@pytest.fixture(autouse=True)
def end_servers_of_the_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Only the ones that it launched itself, without waiting: idle servers take time from the next tests."""
    if "launch" not in request.fixturenames:
        yield
        return
    launch: Launcher = request.getfixturevalue("launch")
    num_shared = len(launch.servers)
    yield
    launch.end(num_shared)


@pytest.fixture(scope="session")
def server(launch: Launcher) -> Server:
    """One server for all tests that leave its state unchanged."""
    server = launch()
    server.wait_listening()
    server.wait_ready()
    return server


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    return eventually


@pytest.fixture
def read_events() -> Callable[[httpx.Response], Iterator[Any]]:
    return events_of
