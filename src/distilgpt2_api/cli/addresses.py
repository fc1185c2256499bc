"""URLs of a service, from the address that it listens on."""

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to
"""Loopback addresses that reach a service which listens on all addresses."""


def url_of(host: str, port: int, *, is_tls: bool = False) -> str:
    """The root URL."""
    return f"{'https' if is_tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
