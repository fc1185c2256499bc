"""`batch --ray`: a cluster answers a file as one machine does, even if nodes are lost."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster
from tests.ray.conftest import NODE, eventually, ray_pids

NUM_LINES = 240
LONG_TOKENS = 1200
TIMEOUT_S = 100


@contextmanager
def nodes(*num_cpus: int) -> Iterator[Cluster]:
    """A cluster of nodes with these numbers of cores, the head node first."""
    before = ray_pids()
    cluster = Cluster()
    try:
        for number in num_cpus:
            cluster.add_node(num_cpus=number, **NODE)
        yield cluster
    finally:
        cluster.shutdown()
    eventually(lambda: ray_pids() <= before, "no process is left behind")


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    """Two workers, and a head node that computes nothing."""
    with nodes(0, 1, 1) as cluster:
        yield cluster


@pytest.fixture
def start(settings: Any, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """`start("in.jsonl", "-o", "out.jsonl", cluster=…)` starts the command; without a cluster it computes locally."""

    def run(*arguments: str, cluster: Cluster | None = None, **changed: object) -> subprocess.Popen[str]:
        variables = {f"DISTILGPT2_{name.upper()}": str(value) for name, value in {**settings, **changed}.items()}
        if cluster is not None:
            variables["RAY_ADDRESS"] = cluster.address
            arguments = (*arguments, "--ray")
        return subprocess.Popen(
            [sys.executable, "-m", "distilgpt2_api", "batch", *arguments],
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )

    return run


@pytest.fixture
def batch(start: Any) -> Callable[..., tuple[int, str]]:
    """Runs the command to its end. Returns exit status and stderr."""

    def run(*arguments: str, **options: Any) -> tuple[int, str]:
        return ended(start(*arguments, **options))

    return run


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, said = process.communicate(timeout=TIMEOUT_S)
    assert output == ""
    return process.returncode, said


def ask(number: int, **body: object) -> str:
    """A line. Some take much longer than others, so that a batch can be stopped in the middle."""
    num_tokens = random.Random(number).choice([4, 8, LONG_TOKENS])
    body = {"prompt": f"once {number}", "seed": number, "max_tokens": num_tokens, "ignore_eos": True, **body}
    return json.dumps({"custom_id": f"{number}", "method": "POST", "url": "/v1/completions", "body": body}) + "\n"


@pytest.fixture
def requests(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(ask(number) for number in range(NUM_LINES)))


def texts(path: Path) -> list[tuple[str, str]]:
    """Custom ids and completions of the complete lines, in the file's order."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    answers = [json.loads(line) for line in lines]
    return [(answer["custom_id"], answer["response"]["body"]["choices"][0]["text"]) for answer in answers]


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.timeout(150)
def test_a_cluster_gives_the_same_output_as_one_machine(two: Cluster, batch: Any, tmp_path: Path) -> None:
    """In the input's order, with failed lines in the error file."""
    lines = [ask(number) for number in range(NUM_LINES)]
    lines[3] = "{\n"
    lines[70] = ask(1)
    lines[71] = ask(71, n=100)
    (tmp_path / "in.jsonl").write_text("".join(lines))

    here, there = batch("in.jsonl", "-o", "here.jsonl"), batch("in.jsonl", "-o", "there.jsonl", cluster=two)

    assert here[0] == there[0] == 5, there[1]
    assert there[1].splitlines() == [
        f"{NUM_LINES} lines, {NUM_LINES - 3} answered: there.jsonl",
        "3 failed: there.errors.jsonl (--retry-failed asks them again)",
    ]
    assert texts(tmp_path / "there.jsonl") == texts(tmp_path / "here.jsonl")
    errors = [
        [
            (line["custom_id"], line["error"] or line["response"]["body"])
            for line in map(json.loads, (tmp_path / name).read_text().splitlines())
        ]
        for name in ("here.errors.jsonl", "there.errors.jsonl")
    ]
    assert errors[0] == errors[1]


@pytest.mark.reported("a batch of 2000 lines with one guided_regex: 1984 of them failed")
@pytest.mark.timeout(100)
def test_lines_that_wait_for_grammars_are_answered_on_a_cluster(two: Cluster, batch: Any, tmp_path: Path) -> None:
    """First all lines share one grammar, then there are more different grammars than may wait."""
    lines = [ask(number, max_tokens=2, guided_regex="[ab]{9}") for number in range(100)]
    lines += [ask(number, max_tokens=4, guided_regex=f"{number}") for number in range(100, 200)]
    (tmp_path / "in.jsonl").write_text("".join(lines))

    status, said = batch("in.jsonl", "-o", "out.jsonl", cluster=two)

    assert (status, said.splitlines()[-1]) == (0, "200 lines, 200 answered: out.jsonl"), said
    answers = texts(tmp_path / "out.jsonl")
    assert answers[100:] == [(f"{number}", f"{number}") for number in range(100, 200)]


@pytest.mark.timeout(100)
def test_a_table_is_answered_on_a_cluster(two: Cluster, batch: Any, tmp_path: Path) -> None:
    rows = "".join(f'title {number},"once, {number}",{number % 7 + 1},{number}\n' for number in range(50))
    (tmp_path / "in.csv").write_text(f"title,prompt,max_tokens,seed\n{rows}")

    here, there = batch("in.csv", "-o", "here.csv"), batch("in.csv", "-o", "there.csv", cluster=two)

    assert here[0] == there[0] == 0
    assert there[1].splitlines()[-1] == "50 lines, 50 answered: there.csv"
    answers = []
    for name in ("here.csv", "there.csv"):
        with (tmp_path / name).open(newline="") as file:
            answers.append(list(csv.DictReader(file)))
    assert answers[0] == answers[1]


@pytest.mark.timeout(200)
@pytest.mark.usefixtures("requests")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_batch_continues(
    two: Cluster, start: Any, batch: Any, tmp_path: Path, number: signal.Signals
) -> None:
    """Each line occurs once, and the stopped command's workers end. The cluster or one machine can continue."""
    before, output = ray_pids(), tmp_path / "out.jsonl"
    process = start("in.jsonl", "-o", "out.jsonl", "--unordered", cluster=two)
    eventually(lambda: num_lines(output) > 20, "some lines are answered")
    process.send_signal(number)
    status, said = ended(process)
    num_done = num_lines(output)

    assert num_done < NUM_LINES
    if number == signal.SIGTERM:
        told = f"error: stopped; {num_done} lines are complete: run the same command again to continue\n"
        assert (status, said) == (1, told)
    assert batch("in.jsonl", "-o", "out.jsonl", cluster=two if number == signal.SIGKILL else None)[0] == 0
    assert batch("in.jsonl", "-o", "whole.jsonl")[0] == 0
    assert sorted(texts(output)) == sorted(texts(tmp_path / "whole.jsonl"))
    eventually(lambda: not workers(before), "no worker is left")


def workers(before: set[int]) -> list[int]:
    return [pid for pid in ray_pids() - before if b"MapWorker" in command_of(pid)]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has exited


@pytest.mark.timeout(150)
@pytest.mark.usefixtures("requests")
@pytest.mark.parametrize("options", [[], ["--unordered"]])
def test_the_lines_of_a_lost_node_are_answered_on_another(
    two: Cluster, start: Any, tmp_path: Path, options: list[str]
) -> None:
    """One worker remains, and each line occurs once.

    Batches are small, or all lines would be in flight at once and end together.
    """
    output = tmp_path / "out.jsonl"
    process = start("in.jsonl", "-o", "out.jsonl", *options, cluster=two, max_num_sequences=8)
    eventually(lambda: num_lines(output) > 10, "some lines are answered")
    node = next(iter(sorted(two.worker_nodes, key=lambda node: node.node_id)))
    node.kill_all_processes(check_alive=False, allow_graceful=False)
    num_then = num_lines(output)
    status, said = ended(process)
    two.remove_node(node, allow_graceful=False)  # also removes it from the cluster's list
    two.add_node(num_cpus=1, **NODE)

    assert num_then < NUM_LINES
    *progress, last = said.splitlines()  # on a slow machine there are lines of progress
    assert all(line.endswith(" left") for line in progress)
    assert (status, last) == (0, f"{NUM_LINES} lines, {NUM_LINES} answered: out.jsonl")
    custom_ids = [custom_id for custom_id, _ in texts(output)]
    assert sorted(custom_ids, key=int) == [f"{number}" for number in range(NUM_LINES)]
    assert options or custom_ids == sorted(custom_ids, key=int)


@pytest.mark.timeout(100)
@pytest.mark.usefixtures("requests")
def test_a_model_that_workers_cannot_load_is_an_error(two: Cluster, batch: Any, settings: Any, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((Path(settings["model"]) / name).read_bytes())
    (folder / "model.safetensors").write_bytes(b"broken")

    status, said = batch("in.jsonl", "-o", "out.jsonl", cluster=two, model="broken")

    assert (status, said.count("\n")) == (1, 1), said
    assert said.startswith("error: a worker on node 127.0.0.1 can't answer: ")
    assert "model.safetensors" in said
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.timeout(100)
@pytest.mark.usefixtures("requests")
def test_a_cluster_without_enough_cores_is_an_error(two: Cluster, batch: Any) -> None:
    status, said = batch("in.jsonl", "-o", "out.jsonl", "--num-threads", "2", cluster=two)

    assert (status, said.split(";")[0]) == (
        1,
        "error: no node of the cluster has 2 cores for a worker",
    )


@pytest.mark.timeout(100)
@pytest.mark.usefixtures("requests")
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:{port}", "can't reach a Ray cluster at 127.0.0.1:{port}: "),
        ("auto", "this machine is a node of no Ray cluster: start one with `ray start --head`, or give --ray-address"),
        ("ray://127.0.0.1:{port}", "ray://127.0.0.1:{port} is an address for Ray Client; "),
    ],
)
def test_an_unreachable_cluster_is_an_error(batch: Any, address: str, message: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        port = taken.getsockname()[1]
        status, said = batch("in.jsonl", "-o", "out.jsonl", "--ray", "--ray-address", address.format(port=port))

    assert (status, said.count("\n")) == (1, 1), said
    assert said.startswith(f"error: {message.format(port=port)}")


@pytest.mark.timeout(150)
@pytest.mark.usefixtures("requests")
def test_a_lost_head_ends_the_batch_which_another_cluster_continues(start: Any, batch: Any, tmp_path: Path) -> None:
    before, output = ray_pids(), tmp_path / "out.jsonl"
    with nodes(1) as cluster:
        process = start("in.jsonl", "-o", "out.jsonl", cluster=cluster)
        eventually(lambda: num_lines(output) > 10, "some lines are answered")
        for pid in ray_pids() - before:
            os.kill(pid, signal.SIGKILL)
        status, said = ended(process)
    num_done = num_lines(output)

    assert (status, num_done < NUM_LINES) == (1, True)
    end = f"; {num_done} lines are complete: run the same command again to continue\n"
    assert said.count("\n") == 1
    assert said.startswith("error: the Ray cluster is gone")
    assert said.endswith(end)
    assert batch("in.jsonl", "-o", "out.jsonl")[0] == 0
    assert [custom_id for custom_id, _ in texts(output)] == [f"{number}" for number in range(NUM_LINES)]
