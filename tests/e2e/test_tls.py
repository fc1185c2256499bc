"""HTTPS by the service itself: HTTP/1.1 over TLS, with the same limits on connections as without."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.certificates import trusting, write_certificate

WAIT_S = 60.0
HEAD = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def strict_server(launch: Callable[..., Any], wait_until: Callable[..., Any], pair: tuple[Path, Path]) -> Any:
    certificate, key = pair
    server = launch(
        "serve",
        ssl_certfile=certificate,
        ssl_keyfile=key,
        header_timeout_s=1,
        write_timeout_s=0.5,
        max_connections=16,
    )
    wait_until(lambda: "serving" in server.log, "it serves")
    server.url = next(json.loads(line)["url"] for line in server.log.splitlines() if "listening" in line)
    return server


@pytest.fixture
def client(strict_server: Any, pair: tuple[Path, Path]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=strict_server.url, verify=trusting(pair[0]), timeout=WAIT_S) as client:
        yield client


@contextmanager
def connected(server: Any, pair: tuple[Path, Path]) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as connection,
        trusting(pair[0]).wrap_socket(connection, server_hostname="localhost") as encrypted,
    ):
        yield encrypted


def read_to_the_end(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def test_the_service_shows_an_https_address(strict_server: Any) -> None:
    assert strict_server.url.startswith("https://127.0.0.1:")


def test_a_stream_arrives_over_tls(client: httpx.Client, read_events: Any) -> None:
    body = {"prompt": "once", "stream": True, "ignore_eos": True, "max_tokens": 20}
    with client.stream("POST", "/v1/completions", json=body) as response:
        events = list(read_events(response))
    assert response.http_version == "HTTP/1.1"
    assert events[-1] == "[DONE]"
    assert len(events) > 2


def test_a_connection_is_kept_for_more_requests(strict_server: Any, pair: tuple[Path, Path]) -> None:
    with connected(strict_server, pair) as connection:
        for _ in range(3):
            connection.sendall(HEAD + b"\r\n")
            answer = connection.recv(65536)
            while b'{"status":"ok"}' not in answer:
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200")


def test_a_request_in_one_segment_with_the_end_of_the_handshake_is_read(
    strict_server: Any, pair: tuple[Path, Path]
) -> None:
    """Python's own client sends them apart, so this one writes both into memory first."""
    arriving, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(pair[0]).wrap_bio(arriving, leaving, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", strict_server.port), timeout=WAIT_S) as connection:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(leaving.read())
                arriving.write(connection.recv(65536))
        client.write(HEAD + b"connection: close\r\n\r\n")
        connection.sendall(leaving.read())
        answer = b""
        while b'{"status":"ok"}' not in answer:
            try:
                answer += client.read()
            except ssl.SSLWantReadError:
                received = connection.recv(65536)
                assert received, answer
                arriving.write(received)
    assert answer.startswith(b"HTTP/1.1 200")


def test_an_answer_to_a_body_that_is_too_long_can_be_read(client: httpx.Client, strict_server: Any) -> None:
    """The body is still arriving, and TLS can't close one side alone."""
    answer = client.post("/v1/completions", content=b" " * (8 << 20))
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert answer.json()["error"]["code"] == "body_too_large"


@pytest.mark.parametrize("beginning", [b"", b"\x16\x03\x01", HEAD + b"\r\n", b"\x00" * 3000])
def test_what_is_not_a_handshake_is_closed(strict_server: Any, beginning: bytes) -> None:
    with socket.create_connection(("127.0.0.1", strict_server.port), timeout=WAIT_S) as connection:
        connection.sendall(beginning)
        try:
            while connection.recv(65536):
                pass
        except ConnectionResetError:
            pass


def test_unfinished_handshakes_do_not_keep_others_out(strict_server: Any, client: httpx.Client) -> None:
    """They count as connections, and the oldest is closed for a new one."""
    silent = [socket.create_connection(("127.0.0.1", strict_server.port), timeout=WAIT_S) for _ in range(64)]
    try:
        assert client.get("/livez").status_code == 200
    finally:
        for connection in silent:
            connection.close()


def test_a_missing_head_closes_the_connection(strict_server: Any, pair: tuple[Path, Path]) -> None:
    with connected(strict_server, pair) as connection:
        connection.sendall(b"GET /li")
        assert read_to_the_end(connection) == b""


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_an_old_version_of_tls_is_refused(strict_server: Any, pair: tuple[Path, Path]) -> None:
    context = trusting(pair[0])
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", strict_server.port), timeout=WAIT_S) as connection,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(connection, server_hostname="localhost")


def test_nothing_of_this_is_an_error_in_the_log(strict_server: Any) -> None:
    """After the tests above: strangers' handshakes are no news."""
    lines = [json.loads(line) for line in strict_server.log.splitlines()]
    assert [line for line in lines if line["level"] == "error"] == []


@pytest.mark.parametrize("kind", ["serve", "image", "gunicorn"])
def test_a_reload_takes_a_renewed_certificate_and_a_stop_adds_no_line(
    launch: Callable[..., Any], wait_until: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    """An idle client that waits for nothing does not delay the end."""
    pair = write_certificate(tmp_path)
    old = pair[0].read_text()
    server = launch(kind, ssl_certfile=pair[0], ssl_keyfile=pair[1], drain_s=0.5, **own_address(kind, tmp_path))
    wait_until(lambda: "serving" in server.log, "it serves")
    with connected_anywhere(server, tmp_path) as idle:
        assert idle.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(old)
        renewed, key = write_certificate(tmp_path, name="renewed")
        shutil.copy(renewed, pair[0])
        shutil.copy(key, pair[1])
        server.signal(signal.SIGHUP)
        wait_until(lambda: "superseded: completing 0 requests" in server.log, "the new worker has taken over")
        with connected_anywhere(server, tmp_path) as another:
            assert another.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(renewed.read_text())
            server.signal(signal.SIGTERM)
            assert server.wait_exit() == 0
    ours = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    assert [line for line in ours if line["level"] not in ("info", "debug")] == []


def test_gunicorns_own_certificate_encrypts_too(
    launch: Callable[..., Any],
    wait_until: Callable[..., Any],
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Never plain HTTP where a certificate was asked for."""
    monkeypatch.setenv("GUNICORN_CMD_ARGS", f"--certfile {pair[0]} --keyfile {pair[1]}")
    server = launch("gunicorn")
    wait_until(lambda: "serving" in server.log, "it serves")
    with connected_anywhere(server, tmp_path) as connection:
        assert connection.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(pair[0].read_text())
        connection.sendall(HEAD + b"connection: close\r\n\r\n")
        assert b"200 OK" in connection.recv(1 << 16)


def own_address(kind: str, folder: Path) -> dict[str, Path]:
    """Bare Gunicorn has an option of its own for the address, which our settings don't change."""
    return {} if kind == "gunicorn" else {"uds": folder / "socket"}


@contextmanager
def connected_anywhere(server: Any, folder: Path) -> Iterator[ssl.SSLSocket]:
    """At the Unix socket, or at the address in bare Gunicorn's log; without a check of the certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    path = folder / "socket"
    with socket.socket(socket.AF_UNIX if path.exists() else socket.AF_INET) as connection:
        connection.settimeout(WAIT_S)
        if path.exists():
            connection.connect(str(path))
        else:
            server.wait_listening()
            connection.connect(("127.0.0.1", server.port))
        with context.wrap_socket(connection) as encrypted:
            yield encrypted
