"""Loads the service's certificate and key, and checks them as clients will: a fault is one line at the start."""

import re
import ssl
import time
from pathlib import Path
from typing import NoReturn

from distilgpt2_api.core.errors import SettingsError

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
PRIVATE_KEY = re.compile(r"-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----")
KEY_MISMATCH = "KEY_VALUES_MISMATCH"
"""OpenSSL's reason."""
NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which `ssl` does not name: the dates are compared here, to tell them."""


def load_tls_context(certfile: Path, keyfile: Path | None) -> ssl.SSLContext:
    """A server's context for TLS 1.2 or newer and HTTP/1.1. Raises SettingsError."""
    certificate = read_certificate(certfile)
    key_name, key_path = ("ssl_certfile", certfile) if keyfile is None else ("ssl_keyfile", keyfile)
    if not PRIVATE_KEY.search(_read(key_name, key_path)):
        hint = "; set ssl_keyfile" if keyfile is None else ""
        raise SettingsError(f"{key_name} {key_path} has no private key in PEM format{hint}")

    def refuse_passphrase() -> NoReturn:
        raise SettingsError(
            f"the key in {key_name} {key_path} is encrypted, and a service can't ask for its passphrase: decrypt it "
            "with `openssl pkey`"
        )

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certfile, keyfile, password=refuse_passphrase)
        begin_s, end_s = _read_validity(context, certificate)
    except ssl.SSLError as error:
        if error.reason == KEY_MISMATCH:
            raise SettingsError(f"the key in {key_name} {key_path} is not that of ssl_certfile {certfile}") from None
        reason = getattr(error, "verify_message", "") or (error.reason or "invalid").lower().replace("_", " ")
        raise SettingsError(
            f"can't use ssl_certfile {certfile} with the key in {key_name} {key_path}: {reason}"
        ) from None
    if time.time() >= end_s:
        raise SettingsError(f"the certificate in ssl_certfile {certfile} expired on {_date(end_s)}")
    if time.time() < begin_s:
        raise SettingsError(f"the certificate in ssl_certfile {certfile} is valid only from {_date(begin_s)}")
    return context


def read_certificate(certfile: Path) -> str:
    """The file's first certificate in PEM format: the service's own. Raises SettingsError."""
    if not (match := CERTIFICATE.search(_read("ssl_certfile", certfile))):
        raise SettingsError(f"ssl_certfile {certfile} has no certificate in PEM format")
    return match[0]


def _read(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="latin-1")  # any bytes: PEM allows text between its blocks
    except OSError as error:
        raise SettingsError(f"can't read {name} {path}: {error.strerror}") from None


def _date(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time_s))


def _read_validity(context: ssl.SSLContext, certificate: str) -> tuple[float, float]:
    """Begin and end of the certificate's validity, in seconds since the epoch. Raises ssl.SSLError.

    `ssl` tells them only to a client that has verified the certificate, so this is a handshake in memory.
    """
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname = False  # the service does not know the names by which clients call it
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
    trust.load_verify_locations(cadata=certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trust.wrap_bio(to_client, to_server)
    waiting = [client, server]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)
    shown = client.getpeercert() or {}
    begin_s, end_s = (ssl.cert_time_to_seconds(str(shown[name])) for name in ("notBefore", "notAfter"))
    return begin_s, end_s
