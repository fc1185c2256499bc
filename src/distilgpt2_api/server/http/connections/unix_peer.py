"""The address of a Unix socket's clients, who have none."""

import asyncio
import socket

UNIX_PEER = "unix:"
"""As nginx writes it in `X-Forwarded-For`. Only the proxy headers know it: it is trusted as a proxy's."""


def name_unix_peer(transport: asyncio.BaseTransport) -> tuple[str, int] | None:
    """The name if the transport is a Unix socket. Uvicorn has none for it, and then trusts no proxy there."""
    return (UNIX_PEER, 0) if transport.get_extra_info("socket").family == socket.AF_UNIX else None
