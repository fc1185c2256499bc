"""The sockets that a server listens on: an address, a Unix socket's path, or what systemd passes."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distilgpt2_api.cli.addresses import WILDCARDS, url_of
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.settings import Settings
from distilgpt2_api.settings.sources import read_socket_activation

BACKLOG = 2048
FIRST_PASSED_FD = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""
STREAM_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
MAX_PATH_BYTES = 107
"""Linux's `sun_path` has 108 with the final zero. macOS has 4 less, and its own error text."""


def listen(settings: Settings) -> socket.socket:
    """Open the listening socket before anything loads: a taken port is reported immediately, and early clients wait.

    Raises SettingsError.
    """
    if settings.uds is not None:
        return _listen_at_path(settings.uds, settings.uds_permissions)
    return _listen_at_address(settings.host, settings.port)


def check_passed_sockets(settings: Settings) -> list[socket.socket]:
    """Copies of the sockets that systemd passes (sd_listen_fds(3)), which Gunicorn will use instead of the settings'
    address; empty without socket activation. Raises SettingsError.
    """
    passed = [_check_passed(fd) for fd in range(FIRST_PASSED_FD, FIRST_PASSED_FD + read_socket_activation(os.getpid()))]
    names = [shown_address(each, is_tls=settings.ssl_certfile is not None) for each in passed]
    if passed and settings.uds is not None and f"unix:{settings.uds}" not in names:
        raise SettingsError(
            f"uds is {settings.uds}, and systemd passes {', '.join(names)}: make them agree, or unset uds"
        )
    return passed


def _check_passed(fd: int) -> socket.socket:
    try:
        passed = socket.socket(fileno=os.dup(fd))
    except OSError as error:
        raise SettingsError(f"LISTEN_FDS: file descriptor {fd} is not a socket: {error.strerror}") from None
    if passed.type != socket.SOCK_STREAM or passed.family not in STREAM_FAMILIES:
        raise SettingsError(f"LISTEN_FDS: socket {fd} is not a stream of TCP or a Unix socket: use ListenStream=")
    if not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise SettingsError(f"LISTEN_FDS: socket {fd} does not listen: the unit needs Accept=no")
    return passed


def _listen_at_address(host: str, port: int) -> socket.socket:
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = infos[0]
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        # Errors of name resolution have negative numbers and their own text.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        is_taken = error.errno == errno.EADDRINUSE
        remedy = "; stop the program that uses it, or choose another port (--port or PORT)" if is_taken else ""
        raise SettingsError(f"can't listen on {host} port {port}: {reason}{remedy}") from None


def _listen_at_path(path: Path, permissions: int) -> socket.socket:
    """A socket that a dead process left at `path` is replaced; anything else there is refused."""
    num_bytes = len(os.fsencode(path))
    if num_bytes > MAX_PATH_BYTES:
        raise SettingsError(f"can't listen on {path}: the path has {num_bytes} bytes, and {MAX_PATH_BYTES} are allowed")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _creating_as(permissions):
            try:
                listener.bind(str(path))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                _remove_stale(path)
                listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingsError(f"can't listen on {path}: {error.strerror or error}") from None
    except SettingsError:
        listener.close()
        raise
    return listener


@contextmanager
def _creating_as(permissions: int) -> Iterator[None]:
    """The socket has its permissions from its first moment. The process has no other thread yet."""
    before = os.umask(0o777 & ~permissions)
    try:
        yield
    finally:
        os.umask(before)


def _remove_stale(path: Path) -> None:
    """Raises SettingsError if it is no socket, or a program listens on it; OSError if it can't be removed."""
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise SettingsError(f"can't listen on {path}: it exists and is not a socket; remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        status = client.connect_ex(str(path))
    if status != errno.ECONNREFUSED:
        raise SettingsError(f"can't listen on {path}: another program uses it; stop it, or choose another path")
    path.unlink()


def unix_socket_options(path: Path, permissions: int) -> dict[str, Any]:
    """Gunicorn's options for a Unix socket's file. Gunicorn itself fails at its end if the file is gone."""

    def when_ready(server: Any) -> None:
        server.has_own_socket_file = not server.systemd
        server.systemd = True  # Gunicorn leaves the file alone

    def on_exit(server: Any) -> None:
        if server.has_own_socket_file:
            path.unlink(missing_ok=True)

    return {"umask": 0o777 & ~permissions, "when_ready": when_ready, "on_exit": on_exit}


def shown_address(listener: socket.socket, *, is_tls: bool) -> str:
    """The URL to open in a browser, or `unix:` and a path."""
    name = listener.getsockname()
    if not isinstance(name, tuple):
        return f"unix:{os.fsdecode(name)}"
    return shown_url(*name[:2], is_tls=is_tls)


def shown_url(host: str, port: int, *, is_tls: bool = False) -> str:
    """The URL to open in a browser."""
    return url_of("localhost" if host in WILDCARDS else host, port, is_tls=is_tls)
