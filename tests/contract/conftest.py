"""The clients' own code, and the protocols' own schemas, against the live servers of `tests/e2e`."""

from __future__ import annotations

from tests.e2e.conftest import launch, model_folder, read_events, server, wait_until

__all__ = ["launch", "model_folder", "read_events", "server", "wait_until"]
