"""The clients' own code, and the protocols' own schemas, against the live servers of `tests/e2e`, or another service.

    pytest tests/contract --server-url http://…          against a service of the model of `write_model`
    pytest tests/contract --small-server-url http://…    against one of a model as `small_model` makes it, with a store

With either, tests that need what is not there are skipped.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.conftest import Launcher, Service, model_folder, no_certificates, read_events, wait_until, write_model
from tests.e2e.conftest import launch as local_launch

__all__ = ["local_launch", "model_folder", "no_certificates", "read_events", "wait_until"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--server-url", help="use this service instead of a server of our own")
    parser.addoption("--small-server-url", help="the same, for tests that need a short context")


def small_model(folder: Path) -> Path:
    """A model with a short context, short texts (so that no request takes long) and a chat template."""
    write_model(folder, num_positions=128, end_logit=5.0)
    template = folder / "chat_template.jinja"
    template.write_text("{% for message in messages %}{{ message.content }}\n{% endfor %}")
    return folder


@pytest.fixture(scope="session")
def launch(request: pytest.FixtureRequest) -> Launcher:
    """Starts a server, unless the options name another service."""
    if any(request.config.getoption(name, None) for name in ("--server-url", "--small-server-url")):
        pytest.skip("needs a server of its own")
    return request.getfixturevalue("local_launch")  # type: ignore[no-any-return]  # a fixture's value is Any


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Service:
    """One server for all tests that leave its state unchanged."""
    if url := request.config.getoption("--server-url", None):
        return Service(url)
    server = request.getfixturevalue("launch")()
    server.wait_listening()
    server.wait_ready()
    return server  # type: ignore[no-any-return]  # the same


@pytest.fixture(scope="session")
def small_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A server of `small_model`, with a store."""
    if url := request.config.getoption("--small-server-url", None):
        return Service(url)
    server = request.getfixturevalue("launch")(
        model=small_model(tmp_path_factory.mktemp("small")), batch_store=tmp_path_factory.mktemp("store")
    )
    server.wait_listening()
    server.wait_ready()
    return server  # type: ignore[no-any-return]  # the same
