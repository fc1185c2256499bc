"""Where a service is found that listens on an address."""

from __future__ import annotations

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to
"""Where a service that listens everywhere can be asked on its own machine."""


def url_of(host: str, port: int) -> str:
    """Of the root."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
