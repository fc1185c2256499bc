"""The `batch` command in its own process, stopped in many ways."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NUM_LINES = 200
BAD_LINES = (7, 103)
DEADLINE_S = 60.0


@dataclass
class Process:
    popen: subprocess.Popen[str]
    output: Path

    @property
    def num_written_bytes(self) -> int:
        return self.output.stat().st_size if self.output.exists() else 0

    def wait(self) -> tuple[int, str]:
        """Exit status, and what it said."""
        _, said = self.popen.communicate(timeout=DEADLINE_S)
        return self.popen.returncode, said


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Lines of many lengths; some are invalid."""
    path = tmp_path / "in.jsonl"
    fields = {"method": "POST", "url": "/v1/completions"}
    with path.open("w") as file:
        for number in range(1, NUM_LINES + 1):
            body = {"prompt": f"Line {number}", "max_tokens": 1 + number * 37 % 60, "ignore_eos": True}
            line = json.dumps({"custom_id": f"{number}", **fields, "body": body})
            file.write("{bad\n" if number in BAD_LINES else f"{line}\n")
    return path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DISTILGPT2_")}
    return kept | {"DISTILGPT2_CACHE_HOME": str(tmp_path / "cache"), "DISTILGPT2_MAX_NUM_SEQUENCES": "8"}


@pytest.fixture
def command(model_folder: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """`command(output, …)`: the whole command line."""

    def line(output: Path, *options: str) -> list[str]:
        program = [sys.executable, "-m", "distilgpt2_api", "batch", str(tmp_path / "in.jsonl"), "-o", str(output)]
        return [*program, "--model", str(model_folder), "--precision", "f32", "--num-threads", "1", *options]

    return line


@pytest.fixture
def start(
    command: Callable[..., list[str]], environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., Process]]:
    """Starts the command on `in.jsonl`, and ends processes that still run after the test."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*options: str, stderr: int = subprocess.PIPE) -> Process:
        output = tmp_path / "out.jsonl"
        popen = subprocess.Popen(
            command(output, *options), env=environment, stdout=subprocess.DEVNULL, stderr=stderr, text=True
        )
        processes.append(popen)
        return Process(popen, output)

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def check_whole(output: Path, *, is_ordered: bool = True) -> None:
    """Every line exactly once."""
    numbers = [int(json.loads(line)["custom_id"]) for line in output.read_bytes().splitlines()]
    errors_file = output.with_suffix(".errors.jsonl")
    errors = [json.loads(line)["error"]["line"] for line in errors_file.read_bytes().splitlines()]
    assert sorted(numbers) == [number for number in range(1, NUM_LINES + 1) if number not in BAD_LINES]
    assert sorted(errors) == sorted(BAD_LINES)
    if is_ordered:
        assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("option", "kills"),
    [((), (0, 1, 20_000)), (("--unordered",), (2_000, 45_000))],
    ids=["in order", "unordered"],
)
def test_killed_again_and_again_it_answers_each_line_once(
    start: Callable[..., Process],
    source: Path,
    wait_until: Callable[..., Any],
    option: tuple[str, ...],
    kills: tuple[int, ...],
) -> None:
    """After N bytes of output, even within a line. The first process is killed before its first answer."""
    output = source.with_name("out.jsonl")
    for num_bytes in kills:
        process = start(*option)
        wait_until(lambda process=process, least=num_bytes: process.num_written_bytes >= least, "bytes are written")
        process.popen.kill()
        assert process.wait()[0] == -signal.SIGKILL
    assert 0 < output.read_bytes().count(b"\n") < NUM_LINES - len(BAD_LINES)
    status, said = start(*option).wait()
    assert (status, f"{NUM_LINES} lines, {NUM_LINES - len(BAD_LINES)} answered" in said) == (5, True), said
    check_whole(output, is_ordered=not option)


@pytest.mark.parametrize(("number", "options"), [(signal.SIGINT, ["--overwrite"]), (signal.SIGTERM, [])])
def test_a_signal_ends_it_with_one_line_and_it_can_be_resumed(
    start: Callable[..., Process],
    source: Path,
    wait_until: Callable[..., Any],
    number: signal.Signals,
    options: list[str],
) -> None:
    """By the same command, unless that starts over."""
    process = start(*options)
    wait_until(lambda: process.num_written_bytes > 10_000, "a line is written")
    process.popen.send_signal(number)
    status, said = process.wait()
    assert (status, said.count("\n")) == (1, 1), said
    num_lines = sum(
        path.read_bytes().count(b"\n") for path in (process.output, process.output.with_suffix(".errors.jsonl"))
    )
    again = "again without --overwrite" if options else "again"
    assert said == f"error: stopped; {num_lines} lines are complete: run the same command {again} to continue\n"
    assert 0 < num_lines < NUM_LINES
    assert start().wait()[0] == 5
    check_whole(process.output)


def test_a_second_process_is_refused_and_a_pipe_has_no_bar(
    start: Callable[..., Process], source: Path, wait_until: Callable[..., Any]
) -> None:
    first = start()
    wait_until(first.output.exists, "the output is there")
    first.popen.send_signal(signal.SIGSTOP)  # it is not done before the second one has started
    status, said = start().wait()
    first.popen.send_signal(signal.SIGCONT)
    assert (status, said.count("\n")) == (1, 1), said
    assert "is locked: another batch is writing to it" in said
    errors_file = source.with_name("out.errors.jsonl")
    told = f"200 lines, 198 answered: {first.output}\n2 failed: {errors_file} (--retry-failed asks them again)\n"
    assert first.wait() == (5, told)  # a pipe gets no bar
    check_whole(first.output)


SMALL_DISK = """
mount -t tmpfs -o size=64k tmpfs disk
"$@" 2>first.txt; echo $? >>first.txt
cp disk/out.jsonl part.jsonl
mount -o remount,size=16m disk
"$@" 2>second.txt; echo $? >>second.txt
cp disk/out* .
"""
NAMESPACE = ["unshare", "--map-root-user", "--mount"]


def has_namespaces() -> bool:
    command = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_namespaces(), reason="this kernel does not allow mounting a disk in a namespace")
def test_a_full_disk_is_reported_and_output_is_kept(
    command: Callable[..., list[str]], environment: dict[str, str], source: Path, tmp_path: Path
) -> None:
    """On a real small disk, in its own namespace. Once there is room, the same command continues."""
    (tmp_path / "disk").mkdir()
    subprocess.run(
        [*NAMESPACE, "sh", "-c", SMALL_DISK, "sh", *command(tmp_path / "disk" / "out.jsonl")],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=DEADLINE_S,
    )
    said, status = (tmp_path / "first.txt").read_text().splitlines()
    assert status == "1"
    assert said.startswith(f"error: can't write {tmp_path}/disk/out.jsonl: No space left on device; ")
    part, whole = (tmp_path / "part.jsonl").read_bytes(), (tmp_path / "out.jsonl").read_bytes()
    assert part.endswith(b"}\n")
    assert whole.startswith(part)
    assert len(whole) > len(part) > 30_000
    assert (tmp_path / "second.txt").read_text().splitlines()[-1] == "5"
    check_whole(tmp_path / "out.jsonl")


def test_a_terminal_has_a_bar(start: Callable[..., Process], source: Path) -> None:
    ours, theirs = pty.openpty()
    process = start(stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # Linux's error if the other side is closed
        while piece := os.read(ours, 4096):
            said += piece
    os.close(ours)
    assert process.popen.wait(DEADLINE_S) == 5
    assert b"[##############################] 100%  200 lines, 2 failed, 0:00:00 left" in said
