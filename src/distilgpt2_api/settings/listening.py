"""Settings for the address that the service listens on, and for TLS."""

import ssl
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, model_validator

from distilgpt2_api.settings.certificates import load_tls_context


class ListenSettings(BaseModel, defer_build=True):
    """Part of `Settings`, whose validator alone is built."""

    host: str = Field(
        default="0.0.0.0",  # noqa: S104 - a container's service is reached from outside; `HOST` narrows it
        min_length=1,
        description="Address to listen on. `HOST` works too.",
    )
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one. `PORT` works too."
    )
    uds: Path | None = Field(
        default=None,
        description="Path of a Unix socket to listen on, instead of `host` and `port`: for a reverse proxy on the same "
        "machine ([operations.md](operations.md#unix-sockets)). Absolute. A socket that a process left behind there is "
        "replaced.",
    )
    uds_mode: str = Field(
        default="660",
        pattern=r"^0?[0-7]{3}$",
        description="File mode of the Unix socket, in octal digits. A client needs permission to write. `660`: the "
        "service's user and group; `666`: all users of the machine.",
    )
    ssl_certfile: Path | None = Field(
        default=None,
        description="PEM file of the service's certificate, followed by those that lead to its authority. With it the "
        "service speaks only HTTPS, with TLS 1.2 or newer ([operations.md](operations.md#tls)).",
    )
    ssl_keyfile: Path | None = Field(
        default=None,
        description="PEM file of the certificate's private key, without a passphrase. Unset: the key is in "
        "`ssl_certfile`.",
    )

    @model_validator(mode="after")
    def _check_paths(self) -> Self:
        if self.uds is not None and not self.uds.is_absolute():
            raise ValueError(f"uds must be an absolute path, and {str(self.uds)!r} is not")
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("ssl_keyfile is set, and ssl_certfile is not: TLS needs a certificate")
        return self

    @property
    def uds_permissions(self) -> int:
        """`uds_mode` as a number."""
        return int(self.uds_mode, 8)

    def tls_context(self) -> ssl.SSLContext | None:
        """The server's side of TLS; None without a certificate. Raises SettingsError if certificate or key are bad."""
        return None if self.ssl_certfile is None else load_tls_context(self.ssl_certfile, self.ssl_keyfile)
