"""A real Ray cluster of several nodes on this machine's loopback: a head that computes nothing, and workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e import conftest as e2e
from tests.e2e.conftest import Service, model_folder

# Before Ray is imported. The first variable keeps Ray on loopback, despite its name.
os.environ |= {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Seconds after which a node that has lost its head node exits; the default is a minute.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3",
}

import ray
from ray import serve
from ray.cluster_utils import Cluster

from distilgpt2_api.scale_out.ray_serve import app

__all__ = ["model_folder"]

DEADLINE_S = 60.0
PORT = 18765
NODE: dict[str, Any] = {"object_store_memory": 80 << 20, "include_dashboard": False}


eventually = partial(e2e.eventually, deadline_s=DEADLINE_S, interval_s=0.05)
"""Ray's controllers are slow, and polling them is expensive."""


def ray_pids() -> set[int]:
    """The pids of all processes of Ray: nodes, stores, controllers, replicas."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it has exited
        if command.startswith(b"ray::") or b"/ray/core/src/ray/" in command or b"/ray/_private/" in command:
            found.add(int(folder.name))
    return found


@dataclass
class RayCluster(Service):
    """The cluster and the application deployed last. Mutable."""

    cluster: Cluster
    workers: list[Any] = field(default_factory=list)

    def add_worker(self) -> Any:
        """Adds a node for one replica."""
        self.workers.append(self.cluster.add_node(num_cpus=1, **NODE))
        return self.workers[-1]

    def kill_worker(self, node: Any) -> None:
        """Kills all of its processes at once, as if the machine failed."""
        self.workers.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def deploy(self, *, replicas: int = 1, max_replicas: int | None = None, **settings: object) -> None:
        """Deploys the application again, and returns when it runs. Raises what Ray raises."""
        with environment(settings):
            serve.run(app({"min_replicas": replicas, "max_replicas": max_replicas}))

    def replace(self, **options: Any) -> None:
        """Deploys one replica with new settings, and returns when the old replicas are gone."""
        old = self.replicas()
        self.deploy(**options)
        eventually(lambda: len(self.replicas() - old) == len(self.replicas()) == 1, "the one replica is new")

    def replicas(self) -> set[str]:
        """The names of the replicas that answer."""
        page = self.get("/metrics")
        return {
            line.split('replica="')[1].split('"')[0]
            for line in page.text.splitlines()
            if line.startswith("distilgpt2_engine_state{") and page.status_code == 200
        }

    def running(self, replica: str | None = None) -> float:
        """The number of running sequences, of all replicas or of one."""
        return self.metric("distilgpt2_running_sequences", **({} if replica is None else {"replica": replica}))


@contextmanager
def environment(settings: dict[str, object]) -> Iterator[None]:
    """Sets these settings in the environment, and no others."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("DISTILGPT2_")]:
            patch.delenv(name)
        for name, value in settings.items():
            patch.setenv(f"DISTILGPT2_{name.upper()}", str(value))
        yield


def is_serving(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def settings(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The default settings of deployments."""
    return {
        "model": model_folder,
        "precision": "f32",
        "cache_home": tmp_path_factory.mktemp("cache"),
        "timeout_s": 60,
    }


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    before = ray_pids()
    nodes = Cluster(shutdown_at_exit=True)
    try:
        nodes.add_node(num_cpus=0, **NODE)
        cluster = RayCluster(f"http://127.0.0.1:{PORT}", nodes)
        for _ in range(2):
            cluster.add_worker()
        ray.init(address=nodes.address, log_to_driver=False)
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": PORT})
        yield cluster
    finally:
        serve.shutdown()
        ray.shutdown()
        nodes.shutdown()
    eventually(lambda: ray_pids() <= before, "no process is left behind")
