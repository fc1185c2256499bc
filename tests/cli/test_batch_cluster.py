"""The command's side of `batch --ray`: the driver's frames and its exit. Ray's side: tests/ray."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from distilgpt2_api.batch.errors import BatchFileError, ClusterError
from distilgpt2_api.batch.files.cluster_pipe import Assignment
from distilgpt2_api.batch.files.formats import JsonLines
from distilgpt2_api.batch.files.ordered_writer import OrderedWriter
from distilgpt2_api.batch.files.output_file import OutputFile
from distilgpt2_api.cli.batch_cluster import finish_on_cluster

DRIVER = """
import os, sys, time
from distilgpt2_api.batch.files.cluster_pipe import Assignment, Frame, FrameKind

with os.fdopen(int(sys.argv[1]), "wb") as target:
    first = Assignment.from_json(sys.stdin.buffer.readline()).num_output_bytes // 2  # lines are two bytes

    def say(kind, content="", position=0):
        target.write(Frame(kind=FrameKind[kind], content=content.encode(), position=position).to_bytes())
        target.flush()

    def answer(*numbers):
        for number in (number for number in numbers if number < 10):
            say("ANSWERED", f"{number}\\n", position=number - first)

"""
"""A driver that runs the program below, with ten lines."""


@dataclass
class Cluster:
    """Ten lines, 0 to 9, written to two files in a folder."""

    folder: Path
    stack: ExitStack
    num_passes: int = 0
    files: dict[str, OutputFile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("output", "errors"):
            self.files[name] = OutputFile(self.folder / name, file_format=JsonLines())
            self.stack.callback(self.files[name].close)

    def finish(self, play: str, *, is_ordered: bool = True, room: int = resource.RLIM_INFINITY) -> None:
        """`room`: the most bytes that fit into a file."""
        played = "".join(f"    {line}\n" for line in play.split("\n"))
        (self.folder / "driver_of_the_test.py").write_text(DRIVER + played)

        def begin() -> tuple[Assignment, OrderedWriter]:
            self.num_passes += 1
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            assignment = Assignment(
                source=Path("in"),
                max_line_bytes=100,
                output=Path("output"),
                num_output_bytes=self.files["output"].num_bytes,
                errors=Path("errors"),
                num_errors_bytes=0,
                max_lines=100,
                is_ordered=is_ordered,
                address="auto",
                num_replicas=None,
                num_cores=1,
                max_num_sequences=1,
            )
            return assignment, OrderedWriter(**self.files, is_ordered=is_ordered, on_written=lambda _: None)

        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.folder), *sys.path])}
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            finish_on_cluster(
                begin,
                num_pending_lines=10 - len(self.answered),
                environment=environment,
                driver="driver_of_the_test",
            )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    @property
    def answered(self) -> list[str]:
        return (self.folder / "output").read_text().split()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack)


ALL = [f"{number}" for number in range(10)]


def test_all_lines_are_answered_in_one_pass(cluster: Cluster) -> None:
    cluster.finish("answer(1, 0, *range(2, 10)); say('ENDED')")
    assert (cluster.answered, cluster.num_passes) == (ALL, 1)


def test_a_lost_line_is_sent_again(cluster: Cluster) -> None:
    """With the computed lines that waited for it."""
    cluster.finish("answer(first, first + 1, first + 2, first + 4); say('LOST', 'a node is gone')")
    assert (cluster.answered, cluster.num_passes) == (ALL, 4)


def test_lines_missing_at_the_end_are_sent_again(cluster: Cluster) -> None:
    cluster.finish("answer(*range(first, min(10, first + 5))); say('ENDED')", is_ordered=False)
    assert (cluster.answered, cluster.num_passes) == (ALL, 2)


def test_the_batch_fails_if_the_cluster_answers_nothing(cluster: Cluster) -> None:
    """After three passes in a row without a line; earlier passes don't count."""
    with pytest.raises(ClusterError, match="lost its workers 3 times before they answered a line: a node is gone"):
        cluster.finish("first < 2 and answer(first)\nsay('LOST', 'a node is gone')")
    assert (cluster.answered, cluster.num_passes) == (["0", "1"], 5)


@pytest.mark.parametrize(
    ("play", "message"),
    [
        ("answer(0); say('REFUSED', 'a worker has no model')", "^a worker has no model$"),
        ("answer(0); os._exit(1)", "^the Ray cluster is gone$"),
        ("answer(0); os.kill(os.getpid(), 6)", "^the Ray cluster is gone$"),
        ("answer(0); target.write(b'half'); target.flush(); os._exit(1)", "^the Ray cluster is gone$"),
        ("answer(0); 1 / 0", "^the process that drives Ray has failed: ZeroDivisionError: division by zero$"),
    ],
)
def test_a_failed_driver_is_reported_and_the_output_stays(cluster: Cluster, play: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        cluster.finish(play)
    assert (cluster.answered, cluster.num_passes) == (["0"], 1)


def test_a_full_disk_is_reported_and_the_output_stays(cluster: Cluster) -> None:
    with pytest.raises(BatchFileError, match="can't write"):
        cluster.finish("answer(*range(10)); say('ENDED')", room=5)
    assert cluster.answered == ["0", "1"]
    cluster.finish("answer(*range(first, 10)); say('ENDED')")
    assert cluster.answered == ALL


def test_a_driver_ends_when_its_standard_input_closes(cluster: Cluster) -> None:
    """Otherwise the command would wait for it and kill it."""
    cluster.finish("answer(*range(10)); say('ENDED'); sys.stdin.read(); open(__file__ + '.ended', 'w').close()")
    assert (cluster.folder / "driver_of_the_test.py.ended").exists()


@pytest.mark.parametrize("option", [("--replicas", "2"), ("--ray-address", "10.0.0.1:6379")])
def test_an_option_for_a_cluster_requires_ray(invoke: Callable[..., Result], tmp_path: Path, option: Any) -> None:
    (tmp_path / "in.jsonl").write_text("")
    result = invoke("batch", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), *option)
    assert result.exit_code == 2
    assert "--ray-address and --replicas are for --ray" in result.stderr


def test_an_address_in_the_environment_does_not_start_a_cluster(
    invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    (tmp_path / "in.jsonl").write_text("")
    assert invoke("batch", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")).exit_code == 0


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_missing_packages_are_named_before_any_file_is_opened(
    invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    (tmp_path / "in.jsonl").write_text("")
    result = invoke("batch", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--ray")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: --ray needs the extra `ray`, which is not installed: run `make install EXTRAS=ray` in the checkout,"
        " or `python -m pip install 'distilgpt2-api[ray]'` beside the installed package,"
        " or build the image with --build-arg EXTRAS=ray\n"
    )
    assert not (tmp_path / "out.jsonl").exists()


def test_the_command_imports_no_kernels() -> None:
    """The command only reads and writes while the cluster computes."""
    program = "import json, sys, distilgpt2_api.cli.commands.batch; print(json.dumps(list(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"distilgpt2_api.model.kernels.library", "ray"} & set(json.loads(result.stdout))
