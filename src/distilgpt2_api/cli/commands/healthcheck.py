"""`distilgpt2-api healthcheck`: the container's HEALTHCHECK, so that the image needs no curl."""

import http.client
import socket
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from distilgpt2_api.cli.addresses import WILDCARDS, url_of
from distilgpt2_api.cli.options import FiniteRange
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.settings import Settings
from distilgpt2_api.settings.certificates import read_certificate

READY_PATH = "/readyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL, and how to reach it."""

    url: str
    uds: Path | None = None
    """The Unix socket to connect to, instead of the URL's host."""
    certificate: str | None = None
    """The certificate, in PEM format, that the server must have. None: one of a known authority, for the URL's host."""

    @property
    def shown(self) -> str:
        return self.url if self.uds is None else f"unix:{self.uds}{READY_PATH}"


@click.command("healthcheck")
@click.option("--url", metavar="URL", help="URL to check. Default: /readyz at the address in the settings.")
@click.option("--timeout", "timeout_s", type=FiniteRange(min=0.1), default=3.0, show_default=True, help="In seconds.")
def command(*, url: str | None, timeout_s: float) -> None:
    """Check whether a running service is ready. Exit status: 0 if it is, 1 if it is not.

    Without --url it follows the settings: a Unix socket (uds), and TLS (ssl_certfile), where the server must show the
    certificate in that file.
    """
    target = None
    try:
        target = _target_of_settings(Settings()) if url is None else Target(url=url)
        status = _get_status(target, timeout_s)
    except (OSError, ValueError, http.client.HTTPException, SettingsError) as error:
        where = f"{target.shown}: " if target else ""
        click.echo(f"unhealthy: {where}{' '.join(str(error).split()) or type(error).__name__}")
        sys.exit(1)
    click.echo(f"{'healthy' if status == http.client.OK else 'unhealthy'}: {target.shown}: {status}")
    sys.exit(status != http.client.OK)


def _target_of_settings(settings: Settings) -> Target:
    """Raises SettingsError."""
    certfile = settings.ssl_certfile
    root = url_of(WILDCARDS.get(settings.host, settings.host), settings.port, is_tls=certfile is not None)
    return Target(
        url=f"{root}{READY_PATH}",
        uds=settings.uds,
        certificate=None if certfile is None else read_certificate(certfile),
    )


def _get_status(target: Target, timeout_s: float) -> int:
    parts = urlsplit(target.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the URL must be http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH")
    is_tls = parts.scheme == "https"
    connection = http.client.HTTPConnection(parts.hostname, parts.port or (443 if is_tls else 80), timeout=timeout_s)
    try:
        connection.sock = _connect(target, connection.host, connection.port, timeout_s)
        if is_tls:
            connection.sock = _encrypt(connection.sock, connection.host, target.certificate)
        connection.request("GET", parts._replace(scheme="", netloc="").geturl() or "/")
        return connection.getresponse().status
    finally:
        connection.close()


def _connect(target: Target, host: str, port: int, timeout_s: float) -> socket.socket:
    if target.uds is None:
        return socket.create_connection((host, port), timeout_s)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        connection.connect(str(target.uds))
    except OSError:
        connection.close()
        raise
    return connection


def _encrypt(connection: socket.socket, host: str, certificate: str | None) -> ssl.SSLSocket:
    """`certificate`: the only one to accept, in place of any that a known authority signed for `host`.

    The service's names and its authority need not be known here. A stranger on the port can't use the certificate, as
    it lacks the key.
    """
    context = ssl.create_default_context()
    if certificate is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # compared below, before anything is sent
    encrypted = context.wrap_socket(connection, server_hostname=host)
    if certificate is not None and encrypted.getpeercert(binary_form=True) != ssl.PEM_cert_to_DER_cert(certificate):
        encrypted.close()
        raise ValueError("the server has another certificate than the file ssl_certfile: reload it")
    return encrypted
