from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import write_certificate


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


@contextmanager
def running(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Service)
    with running(server):
        yield server.server_address[1]


class UnixServer(socketserver.UnixStreamServer):
    """`Service` on a Unix socket, whose clients have no address."""

    def get_request(self) -> tuple[Any, Any]:
        connection, _ = super().get_request()
        return connection, ("unix", 0)


@contextmanager
def encrypted_service(pair: tuple[Path, Path]) -> Iterator[int]:
    """`Service` with that certificate and key, at a port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    server = HTTPServer(("127.0.0.1", 0), Service)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that refuses is no error
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with running(server):
        yield server.server_address[1]


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


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/readyz", "ftp://localhost/", "readyz", "http://127.0.0.1:x/"])
def test_a_closed_port_or_a_bad_url_is_one_line(url: str, invoke: Any) -> None:
    result = invoke("healthcheck", "--url", url)
    assert result.exit_code == 1
    assert result.output.startswith(f"unhealthy: {url}: ")
    assert result.output.count("\n") == 1


def test_it_follows_the_setting_of_a_unix_socket(tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    monkeypatch.setenv("DISTILGPT2_UDS", str(path))
    with running(UnixServer(str(path), Service)):
        result = invoke("healthcheck")
    assert (result.exit_code, result.output) == (0, f"healthy: unix:{path}/readyz: 200\n")
    path.unlink()
    result = invoke("healthcheck")
    assert (result.exit_code, result.output) == (
        1,
        f"unhealthy: unix:{path}/readyz: [Errno 2] No such file or directory\n",
    )


def test_it_follows_the_setting_of_a_certificate(tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its authority and its names do not matter."""
    pair = write_certificate(tmp_path, name="api.example.com")
    monkeypatch.setenv("DISTILGPT2_SSL_CERTFILE", str(pair[0]))
    with encrypted_service(pair) as port:
        monkeypatch.setenv("PORT", str(port))
        result = invoke("healthcheck")
    assert (result.exit_code, result.output) == (0, f"healthy: https://127.0.0.1:{port}/readyz: 200\n")


def test_a_stranger_with_another_certificate_is_not_healthy(
    tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, _ = write_certificate(tmp_path)
    monkeypatch.setenv("DISTILGPT2_SSL_CERTFILE", str(own))
    with encrypted_service(write_certificate(tmp_path, name="stranger")) as port:
        monkeypatch.setenv("PORT", str(port))
        result = invoke("healthcheck")
    assert result.exit_code == 1
    assert "the server has another certificate than the file ssl_certfile" in result.output


def test_a_url_is_verified_as_by_any_client(tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = write_certificate(tmp_path)
    with encrypted_service(pair) as port:
        url = f"https://localhost:{port}/readyz"
        refused = invoke("healthcheck", "--url", url)
        monkeypatch.setenv("SSL_CERT_FILE", str(pair[0]))
        accepted = invoke("healthcheck", "--url", url)
    assert refused.exit_code == 1
    assert "CERTIFICATE_VERIFY_FAILED" in refused.output
    assert (accepted.exit_code, accepted.output) == (0, f"healthy: {url}: 200\n")


def test_a_missing_certificate_is_one_line(invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILGPT2_SSL_CERTFILE", "/nowhere.pem")
    result = invoke("healthcheck")
    assert (result.exit_code, result.output) == (
        1,
        "unhealthy: can't read ssl_certfile /nowhere.pem: No such file or directory\n",
    )
