"""A reader with a fresh checkout and two terminals, who types each page's commands in the order of the pages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from tests.commands.hub import run_hub
from tests.commands.terminal import CommandsFailed, Terminal
from tests.docs.blocks import ACTIVATION, ROOT, Block

POETRY = ".tools/poetry"
DOCUMENTED_ADDRESSES = {
    "localhost:8000": "127.0.0.1:{port}",
    "0.0.0.0:8000": "127.0.0.1:{port}",
    "--port 8000": "--port {port}",
}
BLOCK_TIMEOUT_S = 300.0
"""Installations are the longest blocks."""
START_TIMEOUT_S = 300.0
"""`make run` installs first."""
STOP_TIMEOUT_S = 15.0

CURL_OPTIONS = "silent\nshow-error\nfail-with-body\nmax-time = 60\n"
"""Without these, curl exits with 0 for an HTTP error."""
UNSET = (
    "VIRTUAL_ENV",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
    "MODEL",
    "EXTRAS",
    "ARGS",
    "PYTHONPATH",
    "PYTHONHOME",
    "KEY",
)


class Reader:
    """Types a page's blocks. Blocks that serve run in one terminal until the next such block, all others in another.

    Only the service's address differs from the pages, so that the test needs no certain port.
    """

    def __init__(self, checkout: Path, scratch: Path, variables: Mapping[str, str] = MappingProxyType({})) -> None:
        self.checkout = checkout
        self._scratch = scratch
        self._port = _free_port()
        self._environment = {**_readers_environment(scratch / "home", self._port), **variables}
        self._num_terminals = 0
        self._serving: Terminal | None = None
        """The terminal of the running service, which the next page may still use."""

    def read_page(self, blocks: list[Block]) -> str:
        """Type all blocks of one page. Returns their output. Raises CommandsFailed with page and line."""
        is_activated = not any(ACTIVATION in block.text.splitlines() for block in blocks)
        outputs = []
        terminal = self._open_terminal(is_activated=is_activated)
        try:
            for block in blocks:
                try:
                    if block.is_serving:
                        self._serve(block, is_activated=is_activated)
                    else:
                        outputs.append(terminal.run(self._typed(block), timeout_s=BLOCK_TIMEOUT_S))
                except CommandsFailed as error:
                    raise CommandsFailed(f"{block.name}: {error}\n{self._service_log}") from None
                is_activated = is_activated or ACTIVATION in block.text.splitlines()
        finally:
            terminal.close()
        return "".join(outputs)

    def stop_service(self) -> None:
        """Ctrl+C, as the pages say. Ctrl+C does nothing if no service runs."""
        if self._serving is not None:
            self._serving.interrupt(timeout_s=STOP_TIMEOUT_S)
            self._serving.close()
            self._serving = None

    def _serve(self, block: Block, *, is_activated: bool) -> None:
        self.stop_service()
        self._serving = self._open_terminal(is_activated=is_activated)
        self._serving.begin(self._typed(block))
        self._serving.wait(timeout_s=START_TIMEOUT_S, until=self._is_ready)
        if not self._is_ready():
            raise CommandsFailed(f"the service has ended\n{self._serving.output}")

    def _open_terminal(self, *, is_activated: bool) -> Terminal:
        self._num_terminals += 1
        scratch = self._scratch / f"terminal-{self._num_terminals}"
        scratch.mkdir()
        terminal = Terminal(self.checkout, self._environment, scratch)
        if is_activated:
            terminal.run(f"{ACTIVATION}\n", timeout_s=BLOCK_TIMEOUT_S)
        return terminal

    def _typed(self, block: Block) -> str:
        text = block.text
        for documented, typed in DOCUMENTED_ADDRESSES.items():
            text = text.replace(documented, typed.format(port=self._port))
        if block.language != "python":
            return text
        program = self._scratch / "program.py"
        program.write_text(text, encoding="utf-8")
        return f"python {program}\n"

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    @property
    def _service_log(self) -> str:
        return "" if self._serving is None else f"the service's terminal:\n{self._serving.output}"


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    checkout = folder / "distilgpt2-api"
    _copy_checkout(checkout)
    if (tool := ROOT / POETRY).exists():  # saves a quarter of the installation
        shutil.copytree(tool, checkout / POETRY, symlinks=True)
    with run_hub() as hub:
        reader = Reader(checkout, folder, {"HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1"})
        yield reader
        reader.stop_service()


def _copy_checkout(target: Path) -> None:
    """The files of a clone of the present state: all that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        source, copy = ROOT / name, target / name
        if source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy, follow_symlinks=False)


def _readers_environment(home: Path, port: int) -> Mapping[str, str]:
    """A new user's environment, without our variables. Downloads are cached as usual."""
    home.mkdir()
    (home / ".curlrc").write_text(CURL_OPTIONS, encoding="utf-8")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("DISTILGPT2_") and name not in UNSET
    }
    caches = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    path = [folder for folder in environment["PATH"].split(":") if not Path(folder).is_relative_to(ROOT)]
    return environment | {
        "HOME": str(home),
        "XDG_CACHE_HOME": caches,
        "DISTILGPT2_CACHE_HOME": str(home / "compiled"),
        "PATH": ":".join(path),
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
