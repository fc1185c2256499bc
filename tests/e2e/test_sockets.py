"""The service on a Unix socket, and on sockets that systemd passes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from distilgpt2_api.core.exit_status import EXIT_SETTINGS

WAIT_S = 60.0
KINDS = ["serve", "image"]
PASS_SOCKET = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
"""
"""Passes a socket as systemd does: `python -c PASS_SOCKET FD MODULE …`."""


def client_of(path: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost", timeout=WAIT_S)


def events_in(server: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def serve_at(launch: Callable[..., Any], wait_until: Callable[..., Any], path: Path) -> Callable[..., Any]:
    """`serve_at("image")` serves at `path`."""

    def start(kind: str, **settings: object) -> Any:
        server = launch(kind, uds=path, **settings)
        try:
            wait_until(
                lambda: "serving" in server.log or server.process.poll() is not None, "it serves", deadline_s=WAIT_S
            )
        except AssertionError as error:
            error.add_note(f"its log:\n{server.log}")
            raise
        return server

    return start


@pytest.fixture(scope="module", params=KINDS)
def shared(
    request: pytest.FixtureRequest,
    launch: Callable[..., Any],
    wait_until: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Any, Path]:
    """A server at the path of a socket that a killed process left: its kind, itself and the path."""
    path = tmp_path_factory.mktemp("shared") / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    server = launch(request.param, uds=path)
    wait_until(lambda: "serving" in server.log or server.process.poll() is not None, "it serves", deadline_s=WAIT_S)
    return request.param, server, path


def test_a_socket_that_a_killed_process_left_is_replaced(shared: tuple[str, Any, Path]) -> None:
    _, _, path = shared
    with client_of(path) as client:
        assert client.get("/livez").status_code == 200


def test_a_stream_arrives_over_a_unix_socket(shared: tuple[str, Any, Path], read_events: Any) -> None:
    kind, server, path = shared
    body = {"prompt": "once", "stream": True, "ignore_eos": True, "max_tokens": 20}
    with client_of(path) as client, client.stream("POST", "/v1/completions", json=body) as response:
        assert list(read_events(response))[-1] == "[DONE]"
    listening = [line["url"] for line in events_in(server) if line["event"] == "listening"]
    assert listening == ([f"unix:{path}"] if kind == "serve" else [])


def test_only_user_and_group_can_connect_unless_a_setting_says_otherwise(shared: tuple[str, Any, Path]) -> None:
    _, _, path = shared
    assert stat.filemode(path.lstat().st_mode) == "srw-rw----"


@pytest.mark.parametrize("kind", KINDS)
def test_a_reload_keeps_the_socket_and_a_stop_removes_it(
    serve_at: Callable[..., Any], wait_until: Callable[..., Any], path: Path, kind: str
) -> None:
    server = serve_at(kind)
    server.signal(signal.SIGHUP)
    wait_until(lambda: "superseded: completing 0 requests" in server.log, "the new worker has taken over")
    with client_of(path) as client:
        assert client.get("/livez").status_code == 200
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    assert not path.exists()
    assert {line["level"] for line in events_in(server)} == {"info"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_mode_is_a_setting_and_a_deleted_file_disturbs_no_stop(
    serve_at: Callable[..., Any], path: Path, kind: str
) -> None:
    """Cleaners of temporary folders do that. Gunicorn itself would fail, and leave its worker running."""
    server = serve_at(kind, uds_mode="0606")
    assert stat.filemode(path.lstat().st_mode) == "srw----rw-"
    path.unlink()
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    assert {line["level"] for line in events_in(server)} == {"info"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_in_use_is_one_line_and_stays(serve_at: Callable[..., Any], path: Path, kind: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        server = serve_at(kind)
        assert server.wait_exit() == EXIT_SETTINGS
        (line,) = events_in(server)
        assert line["event"] == f"can't listen on {path}: another program uses it; stop it, or choose another path"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


@pytest.mark.parametrize(
    ("kind", "what"), [("serve", "a file"), ("serve", "a folder"), ("image", "a link"), ("image", "a pipe")]
)
def test_what_is_not_a_socket_is_one_line_and_stays(
    serve_at: Callable[..., Any], path: Path, tmp_path: Path, kind: str, what: str
) -> None:
    match what:
        case "a file":
            path.write_text("precious")
        case "a folder":
            path.mkdir()
        case "a link":
            path.symlink_to(tmp_path / "elsewhere")
        case "a pipe":
            os.mkfifo(path)
    server = serve_at(kind)
    assert server.wait_exit() == EXIT_SETTINGS
    (line,) = events_in(server)
    assert line["event"] == (
        f"can't listen on {path}: it exists and is not a socket; remove it, or choose another path"
    )
    assert os.path.lexists(path)


@pytest.mark.parametrize(
    ("place", "reason"),
    [("/nowhere/socket", "No such file or directory"), ("/tmp/" + "a" * 103, "the path has 108 bytes, and 107 are")],
)
def test_a_path_that_can_not_be_is_one_line(launch: Callable[..., Any], place: str, reason: str) -> None:
    server = launch("serve", uds=place)
    assert server.wait_exit() == EXIT_SETTINGS
    (line,) = events_in(server)
    assert line["event"].startswith(f"can't listen on {place}: {reason}")


def test_callers_on_a_unix_socket_are_told_apart_by_their_proxy(serve_at: Callable[..., Any], path: Path) -> None:
    """The proxy adds the client's address as the last one: what a client wrote before it does not count."""
    serve_at("serve", key_tokens_per_s=0.001, key_burst_tokens=1000)
    body = {"prompt": "once", "max_tokens": 990, "ignore_eos": True}

    def status(forwarded: str | None) -> int:
        headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
        with client_of(path) as client:
            return client.post("/v1/completions", json=body, headers=headers).status_code

    assert status("198.51.100.1") == 200
    assert status("198.51.100.1") == 429
    assert status("198.51.100.2") == 200
    assert status("203.0.113.9, 198.51.100.2") == 429
    assert status("203.0.113.9, unix:") == 200  # from one proxy to the next over a Unix socket, too
    assert status("203.0.113.9") == 429
    assert status(None) == 200
    assert status(None) == 429


@pytest.fixture
def activate(model_folder: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`activate(listener, *command, **settings)` runs a module with systemd's variables: process and log."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(listener: socket.socket, *command: str, **settings: object) -> tuple[subprocess.Popen[bytes], Path]:
        chosen = {"model": model_folder, "precision": "f32", "num_threads": 1, **settings}
        chosen |= {name: tmp_path / name for name in ("home", "cache_home")}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTILGPT2_")}
        environment |= {f"DISTILGPT2_{name.upper()}": str(value) for name, value in chosen.items()}
        log = tmp_path / f"log{len(processes)}"
        with log.open("wb") as file:
            arguments = [sys.executable, "-c", PASS_SOCKET, str(listener.fileno()), *command]
            processes.append(
                subprocess.Popen(arguments, env=environment, stdout=file, stderr=file, pass_fds=[listener.fileno()])
            )
        return processes[-1], log

    yield start
    for process in processes:
        process.terminate()
        process.wait(WAIT_S)


SERVE = ["distilgpt2_api", "serve"]
IMAGE = [
    "gunicorn", "distilgpt2_api.api:app", "--worker-class", "distilgpt2_api.worker.Worker",
    "--config", str(Path(__file__).parents[2] / "docker" / "gunicorn.conf.py"),
]  # fmt: skip


@pytest.mark.parametrize("command", [SERVE, IMAGE], ids=KINDS)
def test_it_serves_on_a_tcp_socket_that_systemd_passes(activate: Callable[..., Any], command: list[str]) -> None:
    """A request from before the start waits in the socket. The setting of the port does not matter."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        process, log = activate(listener, *command, port=1)
        assert httpx.get(f"http://127.0.0.1:{port}/livez", timeout=WAIT_S).status_code == 200, log.read_text()
        process.terminate()
        assert process.wait(WAIT_S) == 0
    if command is SERVE:
        assert json.loads(log.read_text().splitlines()[0])["url"] == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("command", [SERVE, IMAGE], ids=KINDS)
def test_a_unix_socket_of_systemd_stays_when_the_service_ends(
    activate: Callable[..., Any], command: list[str], path: Path
) -> None:
    """Systemd listens on, and starts the service again with the next connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        process, log = activate(listener, *command, uds=path)
        with client_of(path) as client:
            assert client.get("/livez").status_code == 200, log.read_text()
        process.terminate()
        assert process.wait(WAIT_S) == 0
    assert path.exists()
    assert {json.loads(line)["level"] for line in log.read_text().splitlines()} <= {"info"}


@pytest.mark.parametrize(
    ("command", "what"),
    [(SERVE, "another path"), (IMAGE, "a datagram socket"), (SERVE, "a connection"), (IMAGE, "a file")],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_socket_that_does_not_fit_is_one_line(
    activate: Callable[..., Any], command: list[str], path: Path, what: str
) -> None:
    settings: dict[str, object] = {}
    near, far = socket.socketpair()
    with near, far, socket.socket(socket.AF_UNIX) as listener, (path.parent / "a file").open("w") as file:
        listener.bind(str(path))
        listener.listen()
        passed: Any = listener
        match what:
            case "another path":
                settings, expected = {"uds": "/run/other"}, f"uds is /run/other, and systemd passes unix:{path}"
            case "a datagram socket":
                passed, expected = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), "use ListenStream="
            case "a connection":
                passed, expected = near, "the unit needs Accept=no"
            case _:
                passed, expected = file, "file descriptor 3 is not a socket"
        process, log = activate(passed, *command, **settings)
        assert process.wait(WAIT_S) == EXIT_SETTINGS
        if passed is not file:
            passed.close()
    (line,) = log.read_text().splitlines()
    assert expected in json.loads(line)["event"]


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="there is no systemd-socket-activate")
def test_systemd_s_own_tool_starts_the_service_with_the_first_connection(
    model_folder: Path, tmp_path: Path, path: Path
) -> None:
    environment = os.environ | {
        "DISTILGPT2_MODEL": str(model_folder), "DISTILGPT2_PRECISION": "f32",
        "DISTILGPT2_HOME": str(tmp_path), "DISTILGPT2_CACHE_HOME": str(tmp_path),
    }  # fmt: skip
    names = [f"--setenv={name}" for name in environment if name.startswith("DISTILGPT2_")]
    command = ["systemd-socket-activate", f"--listen={path}", *names, sys.executable, "-m", *SERVE]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end_s = time.monotonic() + WAIT_S
        while not path.exists():
            assert time.monotonic() < end_s, "systemd-socket-activate does not listen"
        with client_of(path) as client:
            assert client.get("/livez").status_code == 200
    finally:
        process.terminate()
        assert process.wait(WAIT_S) == 0
