"""TLS under the guarded protocol: a connection counts, and has a time limit, from its first byte and not only after the
handshake.

asyncio's own servers tell the protocol of a connection when its handshake is done. Until then, which can be a minute,
nothing would limit how many there are.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, ClassVar

from distilgpt2_api.server.http.connections.connections import GuardedProtocol, limited_protocol
from distilgpt2_api.server.http.connections.unix_peer import name_unix_peer
from distilgpt2_api.server.http.error_shape import ErrorShape
from distilgpt2_api.server.http.limits import ConnectionLimits


class TlsProtocol(GuardedProtocol):
    """A `GuardedProtocol` that begins with a handshake; `tls_protocol` makes its subclasses. For the event loop only.

    The time limit of the first head includes the handshake.
    """

    tls: ClassVar[ssl.SSLContext]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._handshake: asyncio.Task[None] | None = None
        self._held_data = b""
        """Received before the handshake's task ran, or before it ran again: a client may send a request in one segment
        with the end of its handshake."""
        self._is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as Uvicorn has it
        super().connection_made(transport)
        if not transport.is_closing():
            self._handshake = self.loop.create_task(self._shake_hands(transport))

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        encrypted = None
        try:
            if not transport.is_closing():
                transport.pause_reading()  # uvloop ignores it in `connection_made`, so data may have arrived
                self.loop.call_soon(self._pass_held_data, transport)  # when TLS reads there, and before it resumes
                encrypted = await self.loop.start_tls(
                    transport,
                    self,
                    self.tls,
                    server_side=True,
                    ssl_handshake_timeout=self.limits.header_timeout_s,
                    ssl_shutdown_timeout=self.limits.write_timeout_s,
                )
        except OSError:  # no TLS, an old version, a certificate that the client refuses, or a hang-up
            transport.abort()
        self._handshake = None
        if encrypted is None or transport.is_closing():
            self.connection_lost(None)  # during a handshake the event loop does not call it
        elif not self._is_lost:
            super(GuardedProtocol, self).connection_made(encrypted)  # Uvicorn reads and writes there from now on
            self.client = self.client or name_unix_peer(transport)
            if self._held_data:
                self.data_received(self._held_data)

    def _pass_held_data(self, transport: asyncio.Transport) -> None:
        """To the protocol that `start_tls` has installed: a `BufferedProtocol`, which uvloop's does not say it is."""
        data, self._held_data = memoryview(self._held_data), b""
        below: Any = transport.get_protocol()
        while data and below is not self:
            buffer = below.get_buffer(len(data))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            below.buffer_updated(size)
            data = data[size:]

    def data_received(self, data: bytes) -> None:
        if self._handshake is None:
            super().data_received(data)
        else:
            self._held_data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End an idle connection without the client's goodbye, which a client that waits for nothing does not send."""
        if self._is_between_requests and not self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().shutdown()


def tls_protocol(limits: ConnectionLimits, errors: ErrorShape, tls: ssl.SSLContext) -> type[TlsProtocol]:
    """`limited_protocol` with TLS."""
    return type("LimitedTlsProtocol", (TlsProtocol, limited_protocol(limits, errors)), {"tls": tls})
