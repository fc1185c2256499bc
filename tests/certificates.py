"""Certificates for tests, made by `openssl`."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


def write_certificate(folder: Path, *, name: str = "localhost", days: int = 2) -> tuple[Path, Path]:
    """A self-signed certificate for `localhost` and loopback, and its key. Without days it expired in the past."""
    certificate, key, request = (folder / f"{name}.{suffix}" for suffix in ("crt", "key", "csr"))
    run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
        "-keyout", key, "-out", request)  # fmt: skip
    extensions = folder / f"{name}.cnf"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    run(
        "x509", "-req", "-in", request, "-signkey", key, "-days", str(days), "-extfile", extensions, "-out", certificate
    )
    return certificate, key


def encrypt_key(key: Path) -> Path:
    encrypted = key.with_suffix(".encrypted")
    run("pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", encrypted)
    return encrypted


def run(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def trusting(certificate: Path) -> ssl.SSLContext:
    """A client's context that verifies names, dates and signatures, with that certificate as its only authority."""
    return ssl.create_default_context(cafile=certificate)
