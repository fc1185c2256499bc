"""The clients' own code, and the protocols' own schemas, against the live servers of `tests/e2e`."""

from __future__ import annotations

import pytest
from tests.contract.conformance import NUM_POSITIONS
from tests.e2e.conftest import Launcher, Server, launch, model_folder, read_events, server, wait_until, write_model

__all__ = ["launch", "model_folder", "read_events", "server", "small_server", "wait_until"]


@pytest.fixture(scope="session")
def small_server(launch: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server of a model with a short context and short texts, so that no request takes long; with a chat template,
    and with a store.
    """
    folder = write_model(tmp_path_factory.mktemp("small"), num_positions=NUM_POSITIONS, end_logit=5.0)
    template = folder / "chat_template.jinja"
    template.write_text("{% for message in messages %}{{ message.content }}\n{% endfor %}")
    server = launch(model=folder, batch_store=tmp_path_factory.mktemp("store"))
    server.wait_listening()
    server.wait_ready()
    return server
