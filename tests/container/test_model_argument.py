"""`--build-arg MODEL`: a hub name is pulled during the build, a folder of the checkout becomes the image's model."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.container.builds import ROOT, build
from tests.container.engines import Docker
from tests.container.http import complete, get_text
from tests.hub.conftest import COMMIT, FakeHub, HubHandler

HUB_IMAGE = "distilgpt2-api-test:from-hub"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    """A fake hub on loopback with a small `distilgpt2`."""
    size = ["--layers=1", "--heads=2", "--width=32", "--vocab=300", "--positions=64"]
    program = str(ROOT / "benchmarks" / "make_model.py")
    subprocess.run([sys.executable, program, str(tmp_path), *size], check=True, capture_output=True)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    hub = FakeHub(commits={COMMIT: files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_name_is_pulled_and_compiled_at_build(docker: Docker, context: Path, hub: FakeHub) -> None:
    """The container itself needs neither the hub nor its client."""
    result = build(context, HUB_IMAGE, "--network=host", MODEL="distilgpt2", HF_ENDPOINT=hub.url)
    assert result.exit_status == 0, result.output
    with docker.running(HUB_IMAGE) as service:
        service.wait_until_ready()
        assert '"distilgpt2"' in get_text(service.port, "/v1/models")
        assert complete(service.port, max_tokens=3, ignore_eos=True)["usage"]["completion_tokens"] == 3


def test_a_folder_gives_its_name(docker: Docker, large_image: str) -> None:
    with docker.running(large_image) as service:
        service.wait_until_ready()
        assert '"my-model"' in get_text(service.port, "/v1/models")
