"""The files that `make wheels` has built, and programs that install and run them as a user's machine would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.conftest import DEADLINE_S, Server

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".tools" / "wheels" / "bin"
DIST = ROOT / "dist"
KEPT = (
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "PIP_CERT",
    "PIP_INDEX_URL",
    "PIP_CACHE_DIR",
    "UV_INDEX_URL",
    "TMPDIR",
)
"""How this machine reaches a package index. No other variable reaches the programs, above all no PYTHONPATH."""

Run = Callable[..., subprocess.CompletedProcess[str]]
Serve = Callable[[Sequence[str | Path]], Server]


@pytest.fixture(scope="session")
def dist() -> Path:
    if not list(DIST.glob("*.whl")):
        raise pytest.UsageError("dist/ has no wheel: make test-wheels builds them first")
    return DIST


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    """The one of this machine."""
    machine = os.uname().machine
    (path,) = dist.glob(f"*macosx*_{machine}.whl" if sys.platform == "darwin" else f"*manylinux*_{machine}.whl")
    return path


@pytest.fixture(scope="session")
def sdist(dist: Path) -> Path:
    (path,) = dist.glob("*.tar.gz")
    return path


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """A new user's: an empty home, and no program of this checkout on the path."""
    cache = subprocess.run([TOOLS / "pip", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "PIP_CACHE_DIR": cache,
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        "HOME": str(tmp_path_factory.mktemp("home")),
        "PATH": "/usr/bin:/bin",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIPX_DEFAULT_PYTHON": sys.executable,
        "UV_PYTHON": sys.executable,
        "UV_PYTHON_DOWNLOADS": "never",
        "NO_COLOR": "1",
    }


@pytest.fixture(scope="session")
def run(environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program as that user, outside the checkout. A keyword is one more variable of its environment."""
    folder = tmp_path_factory.mktemp("elsewhere")

    def run_as_user(command: Sequence[str | Path], **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=folder, env={**environment, **more}
        )

    return run_as_user


@pytest.fixture(scope="session")
def make_venv(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a virtual environment and installs into it with pip's words; returns its folder of programs."""

    def make(*words: str | Path) -> Path:
        folder = tmp_path_factory.mktemp("venv")
        for command in ([sys.executable, "-m", "venv", folder], [folder / "bin" / "pip", "install", "--quiet", *words]):
            ended = run(command)
            assert ended.returncode == 0, ended.stderr
        return folder / "bin"

    return make


@pytest.fixture(scope="session")
def bare_venv(make_venv: Callable[..., Path], wheel: Path) -> Path:
    """Only the wheel and what it requires."""
    return make_venv(wheel)


@pytest.fixture
def serve(environment: Mapping[str, str], tmp_path: Path) -> Iterator[Serve]:
    """Runs `COMMAND serve` on a free port until the test ends; returns when it is ready."""
    with _servers(environment, tmp_path) as start:
        yield start


@contextmanager
def _servers(environment: Mapping[str, str], folder: Path) -> Iterator[Serve]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(command: Sequence[str | Path]) -> Server:
        log_file = folder / "log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [*command, "serve", "--host", "127.0.0.1", "--port", "0"],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # uv stays as the parent of what it runs
            )
        processes.append(process)
        server = Server("", process, log_file)
        server.wait_listening()
        server.wait_ready()
        return server

    try:
        yield start
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(DEADLINE_S)


@pytest.fixture
def curl() -> Callable[[str], str]:
    """Fetches a URL with the curl of this machine."""
    program = shutil.which("curl")
    assert program

    def fetch(url: str) -> str:
        words = [program, "--fail", "--silent", "--show-error", "--max-time", "60", url]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    return fetch
