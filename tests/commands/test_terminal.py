"""The reader notices when a block fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.commands.conftest import Reader
from tests.commands.terminal import CommandsFailed, Terminal
from tests.docs.blocks import ACTIVATION, ROOT, Block


def block_of(text: str, *, language: str = "sh") -> Block:
    return Block(page=ROOT / "README.md", line=1, language=language, text=text, reason=None)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "scratch").mkdir()
    terminal = Terminal(tmp_path, {"PATH": "/usr/local/bin:/usr/bin:/bin"}, tmp_path / "scratch")
    yield terminal
    terminal.close()


@pytest.mark.parametrize("text", ["false\ntrue\n", "KEY=$(false)\n", "false | true\n"])
def test_any_failed_command_fails_its_block(terminal: Terminal, text: str) -> None:
    with pytest.raises(CommandsFailed, match="exit status 1"):
        terminal.run(text, timeout_s=10)


def test_variables_stay_until_the_terminal_is_closed(terminal: Terminal) -> None:
    terminal.run("KEY=$(echo value)\n", timeout_s=10)
    assert terminal.run("cat <<'END'\nfirst\nEND\necho $KEY\n", timeout_s=10).startswith("first\nvalue\n")


def test_ctrl_c_ends_the_running_program_and_not_the_terminal(terminal: Terminal) -> None:
    terminal.begin(f"{sys.executable} -c \"import time; print('begun', flush=True); time.sleep(100)\"\n")
    terminal.wait(timeout_s=10, until=lambda: "begun" in terminal.output)
    terminal.interrupt(timeout_s=10)
    assert terminal.run("echo again\n", timeout_s=10).startswith("again\n")


@pytest.mark.parametrize(
    "block",
    [
        block_of("false\n"),
        block_of("distilgpt2-api serve --model ./none\n"),
        block_of("raise SystemExit(3)\n", language="python"),
    ],
    ids=["a failed line", "a service that does not start", "a program"],
)
def test_a_failure_is_reported_with_its_page_and_line(tmp_path: Path, block: Block) -> None:
    activate = tmp_path / ACTIVATION.split()[1]
    activate.parent.mkdir(parents=True)
    activate.write_text("")
    reader = Reader(tmp_path, tmp_path)
    try:
        with pytest.raises(CommandsFailed, match=r"README\.md:1: exit status [1-9]"):
            reader.read_page([block])
    finally:
        reader.stop_service()
