"""More than one Gunicorn worker: any of them tells what the whole service did, and none's death takes it away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUM_WORKERS = 2
NUM_TOKENS = 4


def workers_of(service: Any) -> set[int]:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    return {int(pid) for pid in children.read_text().split()}


def num_ready(service: Any) -> float:
    return float(service.metric("distilgpt2_engine_state", state="ready"))


def num_completions(service: Any) -> float:
    return float(service.metric("distilgpt2_http_requests_total", route="/v1/completions", status="200"))


def complete(service: Any) -> None:
    """On a connection of its own, so that either worker may get it."""
    assert service.complete(prompt="once", max_tokens=NUM_TOKENS, ignore_eos=True).status_code == 200


def test_a_folder_that_the_settings_file_names_is_the_one_that_is_shared(
    launch: Callable[..., Any], wait_until: Callable[..., Any], tmp_path: Path
) -> None:
    """The worker makes one of its own only where none is named, wherever it is."""
    folder, file = tmp_path / "metrics", tmp_path / "settings.toml"
    file.write_text(f"metrics_folder = '{folder}'\n")
    service = launch("serve", num_workers=NUM_WORKERS, drain_s=1, config_file=file)
    service.wait_listening()
    wait_until(lambda: num_ready(service) == NUM_WORKERS, "both are ready")
    assert len([*folder.glob("*-*.lock")]) == NUM_WORKERS
    service.signal(signal.SIGTERM)
    assert service.wait_exit() == 0


def test_two_workers_are_one_service(launch: Callable[..., Any], wait_until: Callable[..., Any]) -> None:
    """What was sent is what all pages say; a `kill -9` takes nothing away; at the end nothing is left in memory."""
    folders = set(Path("/dev/shm").glob("distilgpt2-metrics-*"))
    service = launch("serve", num_workers=NUM_WORKERS, drain_s=1)
    service.wait_listening()
    wait_until(lambda: num_ready(service) == NUM_WORKERS, "both are ready")
    [folder] = set(Path("/dev/shm").glob("distilgpt2-metrics-*")) - folders
    assert folder.stat().st_mode & 0o777 == 0o700

    for _ in range(20):
        complete(service)
    wait_until(lambda: num_completions(service) == 20, "all are counted")
    assert {service.metric("distilgpt2_worker_starts_total") for _ in range(6)} == {NUM_WORKERS}
    assert service.metric("distilgpt2_completion_tokens_total") == 20 * NUM_TOKENS
    assert service.metric("distilgpt2_inter_token_latency_seconds_count") == 20 * (NUM_TOKENS - 1)

    assert service.metric("distilgpt2_open_connections") >= 1

    names = ("distilgpt2_completion_tokens_total", "distilgpt2_step_tokens_sum", "process_cpu_seconds_total")
    shown = {name: service.metric(name) for name in names}
    victim = min(workers_of(service))
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(workers_of(service) - {victim}) == NUM_WORKERS, "there is a new worker")
    for _ in range(10):
        before, shown = shown, {name: service.metric(name) for name in names}
        assert all(shown[name] >= before[name] for name in names)
        assert num_completions(service) == 20
    wait_until(lambda: num_ready(service) == NUM_WORKERS, "both are ready again")
    assert service.metric("distilgpt2_worker_starts_total") == NUM_WORKERS + 1
    complete(service)
    wait_until(lambda: num_completions(service) == 21, "counting goes on")

    service.signal(signal.SIGTERM)
    assert service.wait_exit() == 0
    assert not folder.exists()
    assert "Traceback" not in service.log
