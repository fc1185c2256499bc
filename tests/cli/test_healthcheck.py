from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest


class Service(BaseHTTPRequestHandler):
    """Ready at /readyz, not ready at /starting, no response at /silent."""

    def do_GET(self) -> None:
        if self.path == "/silent":
            self.wfile.write(b"nonsense\r\n\r\n")
            return
        self.send_response({"/readyz": 200, "/starting?now=1": 503}.get(self.path, 404))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Tests are silent."""


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("variable", ["PORT", "DISTILGPT2_PORT"])
def test_a_ready_service_at_the_settings_address_is_healthy(
    variable: str, port: int, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(port))
    result = invoke("healthcheck")
    assert (result.exit_code, result.output) == (0, f"healthy: http://127.0.0.1:{port}/readyz: 200\n")


def test_a_service_that_is_not_ready_is_not_healthy(port: int, invoke: Any) -> None:
    result = invoke("healthcheck", "--url", f"http://127.0.0.1:{port}/starting?now=1")
    assert (result.exit_code, result.output.split()[-1]) == (1, "503")


def test_a_server_that_does_not_speak_http_is_not_healthy(port: int, invoke: Any) -> None:
    result = invoke("healthcheck", "--url", f"http://127.0.0.1:{port}/silent")
    assert result.exit_code == 1
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/readyz", "https://localhost/", "readyz", "http://127.0.0.1:x/"])
def test_a_closed_port_or_a_bad_url_is_one_line(url: str, invoke: Any) -> None:
    result = invoke("healthcheck", "--url", url)
    assert result.exit_code == 1
    assert result.output.startswith(f"unhealthy: {url}: ")
    assert result.output.count("\n") == 1
