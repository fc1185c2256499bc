"""Replicas, nodes and head nodes that are lost under load."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML ships no types
from tests.e2e.conftest import Service
from tests.ray.conftest import PORT, eventually, is_serving, ray_pids
from tests.ray.load import Load, ask

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
SERVE = str(Path(sys.executable).with_name("serve"))


def deploy_two(cluster: Any, settings: Any) -> None:
    cluster.deploy(replicas=2, **settings)
    eventually(lambda: len(cluster.replicas()) == 2, "both replicas answer")


@pytest.mark.timeout(200)
def test_a_node_that_dies_under_load_loses_only_started_responses(cluster: Any, settings: Any) -> None:
    """Requests without a first byte are retried elsewhere, other streams get an error event, and capacity recovers."""
    deploy_two(cluster, settings)
    with Load(cluster.url, num_clients=12, num_tokens=800) as load:
        eventually(lambda: min(map(cluster.running, cluster.replicas())) >= 3, "both are busy")
        cluster.kill_worker(cluster.workers[-1])
        num_before = len(load.outcomes)
        eventually(lambda: len(load.outcomes) >= num_before + 24, "the clients are served on")
    logger.info("outcomes: %s", dict(load.kinds))
    cluster.add_worker()  # even if this test fails, others need it
    eventually(lambda: len(cluster.replicas()) == 2, "there are two again")

    assert load.kinds.keys() <= {"whole", "event"}
    assert 1 <= load.kinds["event"] <= 6, "streams of the node that died, at most all of them"
    assert max(outcome.duration_s for outcome in load.outcomes) < 30


@pytest.mark.timeout(200)
def test_a_rolling_update_fails_no_request(cluster: Any, settings: Any) -> None:
    deploy_two(cluster, settings)
    old = cluster.replicas()
    with Load(cluster.url, num_clients=8, num_tokens=300) as load:
        eventually(lambda: len(load.outcomes) > 20, "the load is there")
        cluster.deploy(replicas=2, **settings, max_n=8)
        eventually(lambda: not cluster.replicas() & old and len(cluster.replicas()) == 2, "all replicas are new")
        num_then = len(load.outcomes)
        eventually(lambda: len(load.outcomes) > num_then + 20, "the new ones serve")
    logger.info("outcomes: %s", dict(load.kinds))

    assert load.kinds.keys() == {"whole"}


def test_replicas_are_added_with_the_queue(cluster: Any, settings: Any) -> None:
    cluster.deploy(**settings)
    cluster.deploy(max_replicas=2, **settings, max_num_sequences=2)
    assert len(cluster.replicas()) == 1

    with Load(cluster.url, num_clients=12, num_tokens=300) as load:
        eventually(lambda: len(cluster.replicas()) == 2, "a second replica is there")
    assert load.kinds.keys() == {"whole"}


@pytest.mark.timeout(200)
def test_a_model_that_cannot_be_loaded_ends_serve_run(settings: Any, tmp_path: Path) -> None:
    """With one clear line among Ray's own. Ray's exit status is 0."""
    before = ray_pids()
    model = Path(settings["model"])
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    variables = {"DISTILGPT2_MODEL": str(tmp_path), "DISTILGPT2_CACHE_HOME": str(tmp_path / "cache")}

    result = subprocess.run(
        [SERVE, "run", "distilgpt2_api.scale_out.ray_serve:app"],
        env=os.environ | variables | {"RAY_ADDRESS": "local"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )

    lines = [line for line in result.stdout.splitlines() if "can't serve this model: " in line]
    assert len(lines) == 1, result.stdout
    assert "model.safetensors" in lines[0]
    eventually(lambda: ray_pids() <= before, "no process is left behind")


@pytest.mark.timeout(200)
def test_a_head_node_that_dies_ends_the_cluster(settings: Any, tmp_path: Path) -> None:
    """With `deploy/ray/serve.yaml`: clients see the connection close, and no process is left."""
    before = ray_pids()
    config = yaml.safe_load((ROOT / "deploy" / "ray" / "serve.yaml").read_text())
    config["http_options"]["port"] = PORT + 1
    variables = {f"DISTILGPT2_{name.upper()}": str(value) for name, value in settings.items()}
    config["applications"][0]["runtime_env"]["env_vars"] |= variables
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump(config))
    service = Service(f"http://127.0.0.1:{PORT + 1}")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [SERVE, "run", str(file)], env=os.environ | {"RAY_ADDRESS": "local"}, stdout=log, stderr=log, cwd=ROOT
        )
    try:
        eventually(lambda: is_serving(service.url), "it serves")
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(ask, service.url, is_stream=streams, num_tokens=16000) for streams in (True, False)]
            eventually(lambda: service.metric("distilgpt2_running_sequences") == 2, "both run")
            for pid in ray_pids() - before:
                if Path(f"/proc/{pid}/comm").read_text().strip() in {"raylet", "gcs_server"}:
                    os.kill(pid, signal.SIGKILL)
            assert {task.result().kind for task in asked} == {"cut"}
        assert process.wait(100) != 0
        eventually(lambda: ray_pids() <= before, "no process is left behind")
    finally:
        process.terminate()
        process.wait(60)
