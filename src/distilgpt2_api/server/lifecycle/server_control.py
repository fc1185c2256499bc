"""The interface between an application and the server of several processes when one of them ends.

Separate from `drain`, which uses it: a Gunicorn master imports its worker's class, which must not import an engine.
"""

from typing import Protocol

SERVER_CONTROL = "server_control"
"""Key of a server's `ServerControl` in the lifespan state (ASGI lifespan specification)."""


class ServerControl(Protocol):
    """The interface that a server of several processes offers its application. Our Gunicorn worker implements it."""

    @property
    def is_replacement(self) -> bool:
        """This worker replaces an earlier one: clients wait in the listening socket until it accepts."""

    @property
    def is_superseded(self) -> bool:
        """A newer worker has been started in place of this one."""

    @property
    def is_service_ending(self) -> bool:
        """The whole service is shutting down, not only this process."""

    @property
    def num_connections(self) -> int:
        """Open connections, active and idle."""

    def announce_shutdown(self) -> None:
        """Tell the other workers that this one shuts down. A superseded worker needs this: its own signal does not
        show whether the whole service ends.
        """

    def stop_accepting(self) -> None:
        """Leave new connections to the other processes."""

    def note_alive(self) -> None:
        """Send a heartbeat, which a worker does not send by itself before it listens."""
