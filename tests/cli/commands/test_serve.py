"""The service as a user starts it: one process, Gunicorn's signals, one line per error."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from distilgpt2_api.cli.listening import shown_url
from distilgpt2_api.core.exit_status import EXIT_SETTINGS

START_LIMIT_S = 60.0

NETWORK_GUARD = """
import socket
def refuse(self, address):
    open({record!r}, "a").write(f"{{address}}\\n")
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = refuse
"""


@dataclass
class Service:
    process: subprocess.Popen[str]
    url: str

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection("127.0.0.1", parts.port or 80, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def wait_until_ready(self) -> None:
        end_s = time.monotonic() + START_LIMIT_S
        while self.get("/readyz")[0] != http.client.OK:
            assert time.monotonic() < end_s, "the service did not become ready"
            threading.Event().wait(0.05)


@pytest.fixture
def serve(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """`serve("--model", …)` starts a service without a network on a free port; it ends with the test."""
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(NETWORK_GUARD.format(record=str(tmp_path / "connections")))
    monkeypatch.setenv("PYTHONPATH", str(guard))
    started: list[tuple[subprocess.Popen[str], threading.Thread]] = []

    def run(*arguments: str) -> Service:
        process = start("serve", "--host", "127.0.0.1", "--port", "0", *arguments)
        assert process.stderr is not None
        line = process.stderr.readline()
        # Read the rest of the log so that the pipe never fills.
        rest = threading.Thread(target=process.stderr.read)
        rest.start()
        started.append((process, rest))
        assert "listening" in line
        return Service(process, json.loads(line)["url"])

    yield run
    for process, rest in started:
        process.terminate()
        rest.join()
        process.communicate()


def test_it_serves_the_named_model_and_never_connects_to_a_network(
    serve: Any, tiny_model: Path, tmp_path: Path
) -> None:
    service = serve(
        "--model", str(tiny_model), "--precision", "f32", "--served-model-name", "a", "--served-model-name=b"
    )
    service.wait_until_ready()
    assert [card["id"] for card in service.get("/v1/models")[1]["data"]] == ["a", "b"]
    status, body = service.get("/Once?max_new_tokens=5")
    assert status == http.client.OK
    assert body["generated_sequences"][0].startswith("Once")
    assert not (tmp_path / "connections").exists()


@pytest.mark.reported("first hour: the Makefile said that nothing outside the checkout changes")
def test_it_writes_to_the_two_folders_of_the_settings(
    serve: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/install.md tells users to remove these."""
    user = tmp_path / "user"
    user.mkdir()
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setenv("DISTILGPT2_API_KEYS", "alice:dg2-0123456789abcdef")
    for name in ("DISTILGPT2_HOME", "DISTILGPT2_CACHE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    service = serve("--model", str(tiny_model))
    service.wait_until_ready()
    service.process.terminate()
    assert service.process.wait(START_LIMIT_S) == 0
    folders = {file.parent.relative_to(user).as_posix() for file in user.rglob("*") if not file.is_dir()}
    assert folders == {".local/share/distilgpt2-api", ".cache/distilgpt2-api"}


def test_sigterm_ends_it_with_status_0(serve: Any, tiny_model: Path) -> None:
    service = serve("--model", str(tiny_model))
    service.wait_until_ready()
    service.process.terminate()
    assert service.process.wait(START_LIMIT_S) == 0


def test_ctrl_c_ends_it_with_status_0(serve: Any, tiny_model: Path) -> None:
    """A terminal sends SIGINT to every process of the command."""
    service = serve("--model", str(tiny_model))
    service.wait_until_ready()
    os.killpg(service.process.pid, signal.SIGINT)
    assert service.process.wait(START_LIMIT_S) == 0


def test_a_port_in_use_is_one_line_and_an_exit(start: Any, tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("serve", "--host", "127.0.0.1", "--port", str(port), "--model", str(tiny_model))
        _, errors = process.communicate(timeout=START_LIMIT_S)
    assert process.returncode == EXIT_SETTINGS
    assert json.loads(errors)["event"] == (
        f"can't listen on 127.0.0.1 port {port}: Address already in use; stop the program that uses it, or choose"
        " another port (--port or PORT)"
    )


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "not an address"])
def test_an_address_of_another_machine_is_one_line(host: str, invoke: Any, tiny_model: Path) -> None:
    result = invoke("serve", "--host", host, "--port", "0", "--model", str(tiny_model))
    assert result.exit_code == EXIT_SETTINGS
    assert json.loads(result.stderr)["event"].startswith(f"can't listen on {host} port 0: ")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://localhost:8000"),
        ("::", "http://localhost:8000"),
        ("::1", "http://[::1]:8000"),
        ("192.0.2.1", "http://192.0.2.1:8000"),
    ],
)
def test_the_shown_url_can_be_opened(host: str, url: str) -> None:
    assert shown_url(host, 8000) == url
