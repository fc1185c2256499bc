"""A reader's terminal in a temporary folder, beside a server of the bundled model."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.docs.blocks import ROOT, Block
from tests.e2e.conftest import eventually, launch, model_folder

__all__ = ["launch", "model_folder"]

MODEL = ROOT / "src" / "distilgpt2_api" / "models" / "storyteller"
DOCUMENTED_ADDRESS = "localhost:8000"
TIMEOUT_S = 60

COMMAND = f"""\
#!/bin/bash
# The readers' distilgpt2-api. `serve` runs in the background, so that the block's next lines can use it.
if [[ "$1" != serve ]]; then exec '{sys.executable}' -m distilgpt2_api "$@"; fi
'{sys.executable}' -m distilgpt2_api "$@" --host 127.0.0.1 </dev/null >serve.log 2>&1 &
until curl "127.0.0.1:$PORT/readyz" >/dev/null 2>&1; do
    kill -0 $! || {{ cat serve.log >&2; exit 1; }}
    sleep 0.05
done
"""
CURL_OPTIONS = f"silent\nshow-error\nfail-with-body\nmax-time = {TIMEOUT_S}\n"
"""Without these, curl exits with 0 for an HTTP error."""


class Terminal:
    """Runs a page's blocks one after another in one folder, so that each finds the files of earlier ones."""

    def __init__(self, folder: Path, cache_folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._groups: list[tuple[int, int]] = []
        """Process groups that may contain a server, each with its port."""
        programs = folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        command = programs / "distilgpt2-api"
        command.write_text(COMMAND, encoding="utf-8")
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
        (folder / ".curlrc").write_text(CURL_OPTIONS, encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DISTILGPT2_")}
        self._environment = kept | {
            "HOME": str(folder),
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "DISTILGPT2_HOME": str(folder / "home"),
            "DISTILGPT2_CACHE_HOME": str(cache_folder),
            "DISTILGPT2_NUM_THREADS": "1",
        }

    def run(self, block: Block) -> None:
        """Raise AssertionError with the block's output if it fails."""
        port = _free_port() if "distilgpt2-api serve" in block.text else self._port
        program = block.text.replace(DOCUMENTED_ADDRESS, f"127.0.0.1:{port}")
        shell = ["bash", "-euo", "pipefail", "-c"]
        process = subprocess.Popen(
            [*([sys.executable, "-c"] if block.language == "python" else shell), program],
            cwd=self._folder,
            env=self._environment | {"PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        if port != self._port:
            self._groups.append((process.pid, port))
        try:
            output, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        assert process.returncode == 0, f"{block.name}: exit status {process.returncode}\n{program}\n{output}"

    def close(self) -> None:
        """Stop the servers that blocks have started."""
        for group, port in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)
            eventually(partial(_is_closed, port), f"the server at port {port} ends")


@pytest.fixture(scope="session")
def storyteller(launch: Callable[..., Any]) -> Any:
    server = launch("serve", model=MODEL)
    server.wait_listening()
    server.wait_ready()
    return server


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def terminal(storyteller: Any, cache_folder: Path, tmp_path: Path) -> Iterator[Terminal]:
    """A terminal in a folder with the files that the pages assume: texts, a table, and the reader's own model."""
    (tmp_path / "story.txt").write_text("Once upon a time there was a king who had three sons.\n", encoding="utf-8")
    (tmp_path / "texts.jsonl").write_text('"Once upon a time"\n"There was a king."\n', encoding="utf-8")
    (tmp_path / "prompts.csv").write_text("prompt,max_tokens\nOnce upon a time,9\nThe king,9\n", encoding="utf-8")
    shutil.copytree(MODEL, tmp_path / "my-fine-tuned-gpt2")
    terminal = Terminal(tmp_path, cache_folder, storyteller.port)
    yield terminal
    terminal.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _is_closed(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) != 0
