"""Workers that share their counts: nothing is lost, nothing counted twice, whoever dies when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.observability.metrics_folder import MetricsFolder, make_metrics_folder, remove_metrics_folder


def snapshot(*, counted: float, running: float, usage: float = 0.5, started: float = 100.0) -> dict[str, Any]:
    def family(kind: str, name: str, value: float, **labels: str) -> dict[str, Any]:
        return {"type": kind, "text": "Text.", "samples": [[name, labels, value]]}

    return {
        "tokens": family("counter", "tokens_total", counted),
        "seconds": family("histogram", "seconds_bucket", counted, le="+Inf"),
        "running": family("gauge", "running", running),
        "usage_ratio": family("gauge", "usage_ratio", usage),
        "process_start_time_seconds": family("gauge", "process_start_time_seconds", started),
        "service": family("info", "service_info", 1.0, version="1"),
    }


def values(folder: MetricsFolder) -> dict[str, float]:
    return {sample[0]: sample[2] for family in folder.merged().values() for sample in family["samples"]}


@pytest.fixture
def workers(tmp_path: Path) -> list[MetricsFolder]:
    workers = [MetricsFolder(tmp_path) for _ in range(3)]
    for index, worker in enumerate(workers):
        worker.publish(snapshot(counted=10**index, running=1, usage=index / 2, started=100 + index))
    return workers


def test_every_worker_tells_what_all_have_counted(workers: list[MetricsFolder]) -> None:
    for worker in workers:
        assert values(worker) == {
            "tokens_total": 111,
            "seconds_bucket": 111,
            "running": 3,
            "usage_ratio": 0.5,
            "process_start_time_seconds": 100,
            "service_info": 1,
        }


def test_what_a_dead_worker_counted_stays_and_what_it_held_goes(workers: list[MetricsFolder]) -> None:
    """Its lock is gone with it, however it ended; nobody needs to have said goodbye."""
    workers[1].close()
    for _ in range(2):
        for worker in (workers[0], workers[2]):
            assert values(worker)["tokens_total"] == 111
            assert values(worker)["running"] == 2
            assert values(worker)["process_start_time_seconds"] == 100


def test_dead_workers_leave_one_file_between_them(tmp_path: Path) -> None:
    """A service that restarts its workers for years keeps a folder of the same size."""
    living = MetricsFolder(tmp_path)
    living.publish(snapshot(counted=1, running=0))
    for _ in range(5):
        worker = MetricsFolder(tmp_path)
        worker.publish(snapshot(counted=1, running=1))
        worker.close()
    assert values(living)["tokens_total"] == 6
    assert len(list(tmp_path.iterdir())) == 4  # two of the living worker's, ended.json, and the lock


def test_a_worker_that_died_before_it_published_is_no_trouble(workers: list[MetricsFolder], tmp_path: Path) -> None:
    MetricsFolder(tmp_path).close()
    assert values(workers[0])["tokens_total"] == 111


def test_files_that_outlived_their_folding_are_not_counted_again(workers: list[MetricsFolder], tmp_path: Path) -> None:
    """Killed between the two: the counts are in `ended.json` already."""
    kept = {path: path.read_bytes() for path in tmp_path.glob("*-*.*")}
    workers[1].close()
    assert values(workers[0])["tokens_total"] == 111
    for path, content in kept.items():
        if not path.exists():
            path.write_bytes(content)
    for _ in range(2):
        assert values(workers[0])["tokens_total"] == 111
    assert len(list(tmp_path.glob("*-*.lock"))) == 2


def test_a_folder_in_use_is_not_removed_with_its_maker(tmp_path: Path) -> None:
    """Gunicorn's USR2: the next master's workers may share it."""
    folder = make_metrics_folder()
    worker = MetricsFolder(folder)
    remove_metrics_folder(folder)
    assert folder.exists()
    worker.close()
    remove_metrics_folder(folder)
    assert not folder.exists()
