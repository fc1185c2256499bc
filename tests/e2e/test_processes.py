"""The process: every way to start it, how it ends, and which errors stop the start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from benchmarks.owned_process import children_of
from benchmarks.reliability.http_exchange import build_completion


@pytest.mark.parametrize("kind", ["gunicorn", "gunicorn-plain", "gunicorn-preload", "uvicorn"])
def test_every_way_to_start_serves_and_drains(
    launch: Callable[..., Any], read_events: Any, wait_until: Callable[..., Any], kind: str
) -> None:
    """SIGTERM during a stream: new connections are refused, and the stream ends with an error event in time."""
    server = launch(kind, drain_s=0.5)
    server.wait_listening()
    server.wait_ready()
    assert server.complete(prompt="once", max_tokens=3).status_code == 200
    with server.stream(max_tokens=16000) as response:
        events = read_events(response)
        next(events)
        server.signal(signal.SIGTERM)
        signalled_s = time.monotonic()
        *_, last = events
    assert last["error"]["code"] == "draining"
    exit_code = server.wait_exit()
    assert time.monotonic() - signalled_s < 10  # Gunicorn would kill it after 30 s.
    # After its shutdown bare Uvicorn raises the signal again, as shells expect.
    assert exit_code == (-signal.SIGTERM if kind == "uvicorn" else 0)
    assert "Traceback" not in server.log


def test_an_interrupt_of_the_master_alone_ends_the_service_in_time(launch: Callable[..., Any]) -> None:
    """Gunicorn forwards it as SIGQUIT, on which a worker must exit by itself."""
    server = launch("gunicorn", drain_s=20)
    server.wait_listening()
    server.wait_ready()
    server.signal(signal.SIGINT)
    signalled_s = time.monotonic()
    assert server.wait_exit() == 0
    assert time.monotonic() - signalled_s < 10


@pytest.mark.parametrize(
    "case",
    [
        ("serve", signal.SIGINT, "all"),
        ("serve", signal.SIGINT, "master"),
        ("gunicorn", signal.SIGINT, "all"),
        ("gunicorn", signal.SIGTERM, "master"),
        ("image", signal.SIGINT, "master"),
        ("uvicorn", signal.SIGINT, "all"),
    ],
)
@pytest.mark.reported("a reader: a second Ctrl-C leaves a traceback in the log, and the service runs on for a second")
def test_a_second_interrupt_ends_the_service_at_once_with_one_line(
    launch: Callable[..., Any], read_events: Any, wait_until: Callable[..., Any], tmp_path: Path, case: tuple[Any, ...]
) -> None:
    """A terminal sends Ctrl-C to all processes, and `docker run` without a terminal to the master alone."""
    kind, first, receivers = case
    path = tmp_path / "socket"
    server = launch(kind, drain_s=300, **({"uds": path} if kind == "image" else {}))
    if kind != "image":
        server.wait_listening()
    wait_until(lambda: '"serving"' in server.log, "it serves")
    pids = [server.process.pid, *(children_of(server.process.pid) if receivers == "all" else [])]

    def send(number: signal.Signals) -> None:
        for pid in pids:
            os.kill(pid, number)

    transport = httpx.HTTPTransport(uds=str(path) if kind == "image" else None)
    body = {"prompt": "once", "stream": True, "ignore_eos": True, "max_tokens": 16000, "n": 8}
    with (
        httpx.Client(transport=transport, base_url=server.url or "http://localhost", timeout=30) as client,
        client.stream("POST", "/v1/completions", json=body) as response,
    ):
        events = read_events(response)
        next(events)
        send(first)
        wait_until(lambda: '"draining: ' in server.log, "it drains")
        send(signal.SIGINT)
        with pytest.raises(httpx.RemoteProtocolError):
            list(events)
    assert server.wait_exit() == 0
    _, after = server.log.split('"draining: ')
    ours = [json.loads(line)["event"] for line in after.splitlines()[1:] if line.startswith("{")]
    assert ours == ["interrupted: exiting without completing 1 requests"]
    assert "Traceback" not in after
    assert "ERROR" not in after


def test_a_client_that_does_not_read_leaves_no_traceback_at_a_shutdown(
    launch: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    """Its response can't be completed: Uvicorn cancels it, and says so in one line."""
    server = launch("serve", drain_s=0.2)
    server.wait_listening()
    server.wait_ready()
    request = build_completion(max_tokens=5000, logprobs=20, stream=True)
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", server.port))
        reader.sendall(request)
        wait_until(lambda: server.metric("distilgpt2_running_sequences") == 1, "its sequence runs")
        wait_until(lambda: server.metric("distilgpt2_running_sequences") == 0, "its sequence is complete")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    lines = [json.loads(line) for line in server.log.splitlines()]
    cancelled = next(line for line in lines if "Cancel 1 running task(s)" in line["event"])
    assert (cancelled["logger"], cancelled["level"]) == ("uvicorn.error", "error")
    assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_during_a_drain_the_service_says_so(
    launch: Callable[..., Any], read_events: Any, wait_until: Callable[..., Any], kind: str
) -> None:
    """On new connections readiness and new requests get 503, with a time to retry, and liveness 200. Short streams
    finish normally.
    """
    server = launch(kind, drain_s=20)
    server.wait_listening()
    server.wait_ready()
    with httpx.Client(base_url=server.url) as client, server.stream(max_tokens=5000) as response:
        assert client.get("/readyz").headers.get("connection") != "close"
        events = read_events(response)
        next(events)
        server.signal(signal.SIGTERM)

        def is_unready() -> bool:
            return bool(server.get("/readyz").json() == {"status": "draining"})

        wait_until(is_unready, "it says that it drains")
        assert server.get("/readyz").status_code == 503
        assert server.get("/livez").status_code == 200
        refused = server.complete(prompt="once")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/livez").headers["connection"] == "close"
        assert list(events)[-1] == "[DONE]"
    assert server.wait_exit() == (-signal.SIGTERM if kind == "uvicorn" else 0)


def test_the_service_ends_in_time_during_a_reload(
    launch: Callable[..., Any], read_events: Any, wait_until: Callable[..., Any]
) -> None:
    """The old worker's stream also gets its last event, instead of being killed. (While Gunicorn waits for old workers,
    up to its graceful timeout, it ignores signals.)
    """
    server = launch("serve", drain_s=0.5)
    server.wait_listening()
    server.wait_ready()
    with server.stream(max_tokens=16000, n=8) as response:  # longer than the new worker takes to start
        events = read_events(response)
        next(events)
        server.signal(signal.SIGHUP)
        wait_until(lambda: "superseded: completing 1 requests" in server.log, "the old worker knows")
        server.signal(signal.SIGTERM)
        *_, last = events
    assert last["error"]["code"] == "draining"
    assert server.wait_exit() == 0


def test_idle_connections_to_an_old_worker_do_not_delay_the_end_of_the_service(
    launch: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    """They would stay open for the length of a drain if the service went on."""
    server = launch("serve", drain_s=300)
    server.wait_listening()
    server.wait_ready()
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/livez").is_success
        server.signal(signal.SIGHUP)
        wait_until(lambda: "superseded: completing 0 requests" in server.log, "the old worker knows")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


@pytest.mark.parametrize("kind", ["serve", "gunicorn"])
@pytest.mark.reported("a reader: after `kill -9` of the service, its worker went on and kept the address")
def test_a_worker_whose_master_was_killed_drains_and_frees_the_address(
    launch: Callable[..., Any], read_events: Any, wait_until: Callable[..., Any], kind: str
) -> None:
    server = launch(kind, drain_s=0.5)
    server.wait_listening()
    server.wait_ready()
    (worker,) = children_of(server.process.pid)
    with server.stream(max_tokens=16000) as response:
        events = read_events(response)
        next(events)
        server.signal(signal.SIGKILL)
        *_, last = events
    assert last["error"]["code"] == "draining"
    wait_until(lambda: not Path(f"/proc/{worker}").exists(), "the worker has ended")
    assert "the master process is gone" in server.log
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/livez")


def import_application(before: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Import the application in its own process, as a server does first."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("DISTILGPT2_")}
    return subprocess.run(
        [sys.executable, "-c", f"{before}\nimport distilgpt2_api.api"],
        env=environment | {f"DISTILGPT2_{name.upper()}": value for name, value in settings.items()},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"metrics_folder": "/tmp"}, "unknown setting DISTILGPT2_METRICS_FOLDER in the environment: it was removed, "),
        ({"traces": "true"}, "traces needs the extra `otel`, which is not installed: run `make install EXTRAS=otel` "),
        ({"batch_store": "/nowhere"}, "batch_store needs the extra `batch`, which is not installed: run `make inst"),
    ],
)
def test_a_missing_package_of_an_option_stops_the_start_with_one_clear_line(
    settings: dict[str, str], line: str
) -> None:
    """As without optional dependencies."""
    absent = "'opentelemetry.sdk', 'sqlalchemy', 'python_multipart'"
    result = import_application(f"import sys; sys.modules |= dict.fromkeys([{absent}])", **settings)
    assert result.returncode == 4
    assert json.loads(result.stderr)["event"].startswith(line)


@pytest.mark.reported("operations.md: a model that can't be read ends the service with 3, wherever that is noticed")
def test_a_missing_model_has_the_exit_status_of_model_errors() -> None:
    """With this status Gunicorn does not start another worker."""
    result = import_application(model="/nowhere")
    assert (result.returncode, json.loads(result.stderr)["event"]) == (3, "no folder /nowhere")


def test_a_start_needs_no_packages_of_a_store_and_no_trace_collector() -> None:
    """Without a store. If the packages for traces are installed, it does not wait for a collector."""
    without_packages = "import sys; sys.modules |= dict.fromkeys(['sqlalchemy', 'python_multipart'])"
    result = import_application(without_packages, traces="true")
    assert (result.returncode, "error" in result.stderr) == (0, False)


def test_an_application_built_before_the_fork_allows_one_worker(model_folder: Path) -> None:
    """Several would each take the resources of all, and would not share metrics."""
    command = [sys.executable, "-m", "gunicorn", "distilgpt2_api.api:app", "--preload", "--bind", "127.0.0.1:0"]
    command += ["--worker-class", "distilgpt2_api.worker.Worker", "--workers", "2", "--no-control-socket"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("DISTILGPT2_")}
    environment["DISTILGPT2_MODEL"] = str(model_folder)
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 4
    assert "error: preload_app works only with one worker" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_image_runs_without_gunicorns_heartbeat(
    launch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    """As deploy/scale-to-zero/cloud-run.yaml sets it, where an idle instance gets no processor time."""
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--timeout 0")
    path = tmp_path / "socket"
    server = launch("image", uds=path)
    wait_until(lambda: "serving" in server.log, "it serves")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
        assert client.get("/readyz").status_code == 200
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
