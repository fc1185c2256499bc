from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> NoReturn:
        pytest.fail("a socket was connected")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_the_text_starts_with_the_prompt_and_a_seed_repeats_it(tiny_model: Path, invoke: Any) -> None:
    arguments = ("generate", "Once", "--model", str(tiny_model), "--max-new-tokens", "20", "--seed", "7")
    first = invoke(*arguments)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("Once")
    assert len(first.stdout) > len("Once\n")
    assert invoke(*arguments).stdout == first.stdout
    assert invoke(*arguments[:-1], "8").stdout != first.stdout


@pytest.mark.reported("users of vLLM and llama.cpp, where -1 stands for a seed drawn at random")
def test_minus_one_is_no_seed(tiny_model: Path, invoke: Any) -> None:
    arguments = ("generate", "Once", "--model", str(tiny_model), "--max-new-tokens", "40", "--seed", "-1")
    assert invoke(*arguments).stdout != invoke(*arguments).stdout


def test_several_completions_are_printed_one_after_another(tiny_model: Path, invoke: Any) -> None:
    arguments = ["generate", "Once", "--model", str(tiny_model), "--n", "3", "--max-new-tokens", "5", "--seed", "1"]
    output = invoke(*arguments).stdout
    assert [line for line in output.splitlines() if line.startswith("---")] == [f"--- {i} of 3" for i in (1, 2, 3)]
    assert output.count("Once") == 3


def test_a_dash_reads_the_prompt_from_standard_input(tiny_model: Path, invoke: Any) -> None:
    result = invoke("generate", "-", "--model", str(tiny_model), "--max-new-tokens", "1", input="From a pipe: é")
    assert result.stdout.startswith("From a pipe: é")


def test_an_empty_prompt_starts_from_the_end_of_text(tiny_model: Path, invoke: Any) -> None:
    assert invoke("generate", "", "--model", str(tiny_model), "--max-new-tokens", "4").exit_code == 0


def test_a_prompt_that_does_not_fit_is_one_line(tiny_model: Path, invoke: Any) -> None:
    result = invoke("generate", "x" * 60, "--model", str(tiny_model), "--max-new-tokens", "10")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: This model's maximum context length is 64 tokens")


def test_the_stop_text_and_the_text_after_it_are_not_shown(tiny_model: Path, invoke: Any) -> None:
    arguments = ["generate", "a", "--model", str(tiny_model), "--temperature", "0", "--max-new-tokens", "20"]
    whole = invoke(*arguments).stdout
    stop = whole[5]
    assert invoke(*arguments, "--stop", stop).stdout == whole[: whole.index(stop, 1)] + "\n"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--temperature", "nan"),
        ("--top-p", "nan"),
        ("--min-p", "nan"),
        ("--repetition-penalty", "inf"),
        ("--top-k", str(10**30)),
        ("--stop", ""),
    ],
)
def test_an_invalid_value_is_refused_by_name(option: str, value: str, tiny_model: Path, invoke: Any) -> None:
    result = invoke("generate", "Once", "--model", str(tiny_model), "--max-new-tokens", "2", option, value)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr


@pytest.mark.parametrize("precision", ["int8", "bf16", "f32"])
def test_every_precision_generates(precision: str, tiny_model: Path, invoke: Any) -> None:
    arguments = ["generate", "a", "--model", str(tiny_model), "--precision", precision, "--max-new-tokens", "3"]
    assert invoke(*arguments).exit_code == 0
