"""A processor on which the import of NumPy would end the process is refused before that, in one line."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from distilgpt2_api.core import processor
from distilgpt2_api.core.errors import UnsupportedProcessorError
from distilgpt2_api.core.exit_status import EXIT_MODEL

CORE_2 = "fpu sse sse2 ht syscall nx lm pni ssse3 cx16 lahf_lm"
NEHALEM = f"{CORE_2} sse4_1 sse4_2 popcnt"
MESSAGE = "this processor lacks popcnt, sse4_1, sse4_2: NumPy needs x86-64-v2"

PROGRAM = """
import runpy, sys
from pathlib import Path
from distilgpt2_api.core import processor
processor.CPU_INFO = Path(sys.argv[1])
processor.platform.machine = lambda: "x86_64"
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__")
"""
COMMANDS = {
    "serve": ["distilgpt2_api", "serve", "--host", "127.0.0.1", "--port", "0"],
    "gunicorn": ["gunicorn", "distilgpt2_api.api:app", "--worker-class", "distilgpt2_api.worker.Worker"],
    "uvicorn": ["uvicorn", "distilgpt2_api.api:app", "--host", "127.0.0.1", "--port", "0"],
}
GUNICORN_OPTIONS = ["--bind", "127.0.0.1:0", "--no-control-socket", "--log-level", "error"]


@pytest.fixture
def cpu_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that stands for /proc/cpuinfo, of a Core 2."""
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nmodel name\t: some\nflags\t\t: {CORE_2}\n\nprocessor\t: 1\n")
    monkeypatch.setattr(processor, "CPU_INFO", path)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return path


def test_missing_instructions_are_named(cpu_info: Path) -> None:
    assert cpu_info.exists()
    assert not processor.is_supported()
    with pytest.raises(UnsupportedProcessorError, match=MESSAGE):
        processor.check_processor()


@pytest.mark.parametrize("text", [f"flags\t\t: {NEHALEM} avx2\n", "", "Features\t: fp asimd\n"])
def test_newer_ones_are_accepted_and_unknown_lists_as_well(cpu_info: Path, text: str) -> None:
    cpu_info.write_text(text)
    processor.check_processor()


def test_a_machine_without_the_list_or_of_another_kind_is_accepted(
    cpu_info: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    processor.check_processor()
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    cpu_info.unlink()
    processor.check_processor()


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_server_ends_with_one_line_and_status_3(cpu_info: Path, kind: str) -> None:
    options = GUNICORN_OPTIONS if kind == "gunicorn" else []
    command: list[str | Path] = [sys.executable, "-c", PROGRAM, cpu_info, *COMMANDS[kind], *options]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == EXIT_MODEL, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert json.loads(line)["event"].startswith(MESSAGE)


@pytest.mark.parametrize("name", ["generate", "evaluate", "batch", "convert"])
def test_a_command_ends_with_one_line(cpu_info: Path, name: str) -> None:
    command: list[str | Path] = [sys.executable, "-c", PROGRAM, cpu_info, "distilgpt2_api", name, "--help"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {MESSAGE}")
