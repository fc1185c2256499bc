"""What a server and its application have to say to each other when one of several processes ends.

Apart from `drain`, which uses it: a Gunicorn master imports its worker's class, and should not load an engine for it.
"""

from __future__ import annotations

from typing import Protocol

SERVER_CONTROL = "server_control"
"""Key of the lifespan's state (ASGI lifespan specification) under which a server leaves its `ServerControl`."""


class ServerControl(Protocol):
    """What a server of several processes tells its application and does for it: our Gunicorn worker's."""

    @property
    def is_replacement(self) -> bool:
        """Another worker was here before: clients wait for this one, in the listening socket, until it accepts."""

    @property
    def is_superseded(self) -> bool:
        """A younger worker has been started in place of this one."""

    @property
    def is_service_ending(self) -> bool:
        """The service as a whole is to end, not only one of its processes."""

    @property
    def num_connections(self) -> int:
        """Open ones, with a request and without."""

    def announce_shutdown(self) -> None:
        """Tell the other workers that this one ends. A superseded worker needs it: the signal that it gets does not
        say whether the whole service ends.
        """

    def stop_accepting(self) -> None:
        """New connections are the other processes' from now on."""

    def note_alive(self) -> None:
        """Before it listens a worker has no heartbeat of its own."""
