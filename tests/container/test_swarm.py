"""The image on Docker Swarm with our stack file: a rolling update and the loss of a node, under load.

Three engines on this machine are the nodes, all of them managers. Clients connect through the first node's proxy, as
through an address that moves to a live node.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.container.builds import ROOT
from tests.container.engines import Docker, call
from tests.container.http import is_ready
from tests.container.swarm import PATH, Swarm, missing, swarm_of, wait_until
from tests.container.swarm_load import HEADER, Load

NUM_NODES = 3
NUM_REPLICAS = 3
PORT = 8000
PROXY_IMAGE = "distilgpt2-api-test:haproxy"
PUBLISHED_PROXY = "docker.io/library/haproxy:3.0.11"
PROXY_DOCKERFILE = """
FROM {base}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends haproxy
STOPSIGNAL SIGUSR1
USER 99:99
"""
"""Debian's HAProxy, if no registry has the published one."""

STACK = ROOT / "deploy" / "swarm" / "stack.yaml"
LOAD = {"num_whole": 4, "num_streamed": 2}
NUM_TOKENS = 150
NUM_WARM_REQUESTS = 30
"""Requests answered before and after each event."""


@pytest.fixture(scope="module", autouse=True)
def _nodes_can_be_had() -> None:
    """Skip before anything is built."""
    if why_not := missing():
        pytest.skip(f"swarm: {why_not}")


@pytest.fixture(scope="module")
def proxy_image(docker: Docker, context: Path) -> str:
    """HAProxy: the published image, or Debian's on the available base image."""
    if call(["timeout", "60", "docker", "pull", "--quiet", PUBLISHED_PROXY], is_checked=False).returncode == 0:
        call(["docker", "tag", PUBLISHED_PROXY, PROXY_IMAGE])
        return PROXY_IMAGE
    [base] = [
        line.removeprefix("ARG PYTHON_IMAGE=")
        for line in (context / "Dockerfile").read_text(encoding="utf-8").splitlines()
        if line.startswith("ARG PYTHON_IMAGE=")
    ]
    folder = context.parent / "proxy"
    folder.mkdir()
    (folder / "Dockerfile").write_text(PROXY_DOCKERFILE.format(base=base), encoding="utf-8")
    call(["docker", "build", "--network=host", "--tag", PROXY_IMAGE, str(folder)], timeout_s=300)
    return PROXY_IMAGE


@pytest.fixture(scope="module")
def archive(scratch: Path, image: str, proxy_image: str) -> Path:
    """The image under two tags, of which the second is "the next version", and the proxy's image."""
    call(["docker", "tag", image, f"{image}-next"])
    path = scratch / "swarm-images.tar"
    call(["docker", "save", "--output", str(path), image, f"{image}-next", proxy_image], timeout_s=300)
    return path


@pytest.fixture(scope="module")
def swarm(scratch: Path, archive: Path) -> Iterator[Swarm]:
    (scratch / "swarm").mkdir()
    with swarm_of(NUM_NODES, scratch / "swarm") as swarm:
        for node in swarm.nodes:
            node.docker("load", "--quiet", "--input", str(archive), timeout_s=300)
        yield swarm


@pytest.fixture(scope="module")
def key(scratch: Path, swarm: Swarm) -> str:
    """A key whose hash is the stack's secret."""
    file = scratch / "keys.toml"
    command = [sys.executable, "-m", "distilgpt2_api", "keys", "add", "load", "--file", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": PATH})
    swarm.manager.docker("secret", "create", "distilgpt2-keys", str(file))
    return result.stdout.strip()


@pytest.fixture(scope="module")
def stack(swarm: Swarm, key: str, image: str) -> Swarm:
    """The stack, answering through the first node's proxy."""
    deploy(swarm, image)
    wait_until(lambda: is_whole(swarm), "every replica runs", 120)
    wait_until(lambda: is_ready(PORT, swarm.manager.address), "the proxy finds a replica", 60)
    return swarm


@pytest.fixture(autouse=True)
def load(stack: Swarm, key: str) -> Load:
    return Load(stack.manager.address, PORT, key, NUM_TOKENS)


def deploy(swarm: Swarm, image: str) -> None:
    environment = {"IMAGE": image, "PROXY_IMAGE": PROXY_IMAGE}
    command = ["stack", "deploy", "--resolve-image", "never", "--compose-file", str(STACK), "distilgpt2"]
    swarm.manager.docker(*command, environment=environment)


def is_whole(swarm: Swarm) -> bool:
    return len(swarm.running_tasks("distilgpt2_api")) == NUM_REPLICAS


def wait_for_more(load: Load) -> None:
    target = load.num_requests() + NUM_WARM_REQUESTS
    wait_until(lambda: load.num_requests() >= target, f"{NUM_WARM_REQUESTS} more requests end", 120)


def show(what: str, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    """Print the figures on the terminal even if pytest captures the output: they are the purpose of the run."""
    with capsys.disabled():
        sys.stdout.write(f"\n{what}\n{'':>8} {HEADER}\n{'whole':>8} {load.whole.row()}\n")
        sys.stdout.write(f"{'streams':>8} {load.streamed.row()}\n")


def test_a_rolling_update_loses_no_request(
    stack: Swarm, load: Load, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither whole answers nor streams, even without retries."""
    with load.running(**LOAD):
        wait_for_more(load)
        deploy(stack, f"{image}-next")
        wait_until(lambda: stack.update_state("distilgpt2_api") == "updating", "the update begins", 30)
        update_s = wait_until(
            lambda: stack.update_state("distilgpt2_api") not in {"", "updating"}, "the update ends", 240
        )
        wait_for_more(load)
    show(f"rolling update of {NUM_REPLICAS} replicas in {update_s:.0f} s, under load", load, capsys)
    assert stack.update_state("distilgpt2_api") == "completed"
    assert {task["Image"] for task in stack.running_tasks("distilgpt2_api")} == {f"{image}-next"}
    assert (load.whole.num_failed, load.streamed.num_failed) == (0, 0)
    assert (load.whole.num_failed_at_first, load.streamed.num_failed_at_first) == (0, 0)


def test_the_loss_of_a_node_loses_no_request(stack: Swarm, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    """Except streams that had begun on it. Afterwards the number of replicas is the same as before."""
    assert is_whole(stack)
    used = {task["Node"] for task in stack.running_tasks("distilgpt2_api")}
    lost = next(node for node in reversed(stack.nodes[1:]) if node.name in used)  # clients connect through the first
    with load.running(**LOAD):
        wait_for_more(load)
        stack.lose(lost)
        wait_for_more(load)
        repair_s = wait_until(lambda: is_whole(stack), "as many replicas as before run on the others", 180)
        wait_for_more(load)
    show(f"loss of one of {NUM_NODES} nodes under load; whole again after {repair_s:.0f} s", load, capsys)
    assert load.whole.num_failed == 0
    assert load.streamed.num_failed <= LOAD["num_streamed"]
