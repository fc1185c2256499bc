from __future__ import annotations

import json
import math
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

TEXT = "The king went home.\n<|endoftext|>\n" * 6


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "stories.txt"
    path.write_text(TEXT)
    return path


def test_each_precision_has_a_row_and_they_agree(tiny_model: Path, text_file: Path, invoke: Any) -> None:
    result = invoke("evaluate", str(text_file), "--model", str(tiny_model))
    assert result.exit_code == 0, result.output
    title, header, *rows = result.stdout.splitlines()
    assert title.startswith(f"{6 * 19} bytes of text, ")
    assert header.split() == ["model", "precision", "tokens", "perplexity", "bits/byte", "ratio", "tokens/s"]
    figures = {row.split()[1]: [float(figure) for figure in row.split()[2:]] for row in rows}
    assert list(figures) == ["int8", "bf16", "f32"]
    for num_tokens, perplexity, _, ratio, _ in figures.values():
        assert num_tokens == 6 * 20
        assert perplexity == pytest.approx(figures["f32"][1], rel=0.05)
        assert ratio == pytest.approx(1, abs=0.02)
    assert figures["int8"][3] == 1


@pytest.mark.reported("a newcomer: in a file with both streams, labels of progress stood between the table's rows")
def test_progress_is_shown_on_a_terminal_only(tiny_model: Path, text_file: Path, invoke: Any) -> None:
    arguments = ["evaluate", str(text_file), "--model", str(tiny_model), "--precision", "f32"]
    invoke(*arguments)  # stores the weights
    assert invoke(*arguments).stderr == ""

    ours, terminal = pty.openpty()
    command = [sys.executable, "-m", "distilgpt2_api", *arguments]
    subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, check=True)
    os.close(terminal)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert f"{tiny_model} f32  [" in shown
    assert "100%" in shown


def test_models_are_compared_with_the_first(
    tiny_model: Path, other_end_model: Path, text_file: Path, invoke: Any
) -> None:
    """The models differ in their separators alone. The JSON has the same figures as the table."""
    options = ["--model", str(tiny_model), "--model", str(other_end_model), "--precision", "f32", "--precision", "bf16"]
    table = invoke("evaluate", str(text_file), *options).stdout.splitlines()
    result = invoke("evaluate", str(text_file), *options, "--format", "json")
    rows = json.loads(result.stdout)["results"]
    assert [(row["model"], row["precision"]) for row in rows] == [
        (str(model), precision) for model in (tiny_model, other_end_model) for precision in ("f32", "bf16")
    ]
    assert [line.split()[:2] for line in table[2:]] == [[row["model"], row["precision"]] for row in rows]
    for row, line in zip(rows, table[2:], strict=True):
        assert row["ratio"] == pytest.approx(row["bits_per_byte"] / rows[0]["bits_per_byte"])
        assert f"{row['perplexity']:.3f}" in line
        assert (row["num_tokens"], row["num_bytes"]) == (6 * 20, 6 * 19)


@pytest.fixture
def other_end_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The same model with another end-of-text token in its config."""
    folder = tmp_path / "other"
    shutil.copytree(tiny_model, folder)
    description = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(description.replace("<|endoftext|>", "</s>"))
    return folder


@pytest.mark.reported("reading the code: documents were marked by GPT-2's token, whatever the config said")
@pytest.mark.parametrize("separator", ["</s>", "<|endoftext|>"])
def test_documents_end_with_the_end_of_text_of_the_config(
    separator: str, other_end_model: Path, tmp_path: Path, invoke: Any
) -> None:
    """With each separator that a file can use."""
    (tmp_path / "stories.txt").write_text(f"The king went home.\n{separator}\n" * 6)

    result = invoke("evaluate", str(tmp_path / "stories.txt"), "--model", str(other_end_model), "--precision", "f32")

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{6 * 19} bytes of text, ")
    assert result.stdout.splitlines()[2].split()[2] == str(6 * 20)


def test_one_precision_alone(tiny_model: Path, text_file: Path, invoke: Any) -> None:
    result = invoke("evaluate", str(text_file), "--model", str(tiny_model), "--precision", "f32")
    assert [line.split()[1] for line in result.stdout.splitlines()[2:]] == ["f32"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff\xfe", "is not UTF-8"), (b"", "has no text"), (b"<|endoftext|>\n", "has no text")]
)
def test_a_file_that_can_not_be_scored_is_one_line(
    content: bytes, message: str, tiny_model: Path, tmp_path: Path, invoke: Any
) -> None:
    (tmp_path / "bad.txt").write_bytes(content)
    result = invoke("evaluate", str(tmp_path / "bad.txt"), "--model", str(tiny_model))
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def score_lines(folder: Path, *values: Any, invoke: Any, model: Path, options: Sequence[str] = ()) -> list[Any]:
    (folder / "texts.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    flags = ["--jsonl", "--precision", "f32", "--model", str(model), *options]
    result = invoke("evaluate", str(folder / "texts.jsonl"), *flags)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_each_line_of_a_file_gets_a_score(tiny_model: Path, tmp_path: Path, invoke: Any) -> None:
    """In order. Of a pair, only the continuation is scored; a text scores like a continuation without context."""
    whole, bare, continuation, named = score_lines(
        tmp_path,
        "The king went home.",
        {"context": "", "continuation": "The king went home."},
        {"context": "The king", "continuation": " went home."},
        {"text": "The king went home."},
        invoke=invoke,
        model=tiny_model,
    )

    assert [line["index"] for line in (whole, bare, continuation, named)] == [0, 1, 2, 3]
    assert whole | {"index": 1} == bare
    assert whole | {"index": 3} == named
    assert (whole["num_tokens"], whole["num_bytes"], continuation["num_tokens"]) == (19, 19, 11)
    assert whole["perplexity"] == pytest.approx(math.exp(-whole["logprob"] / 19))
    assert whole["bits_per_byte"] == pytest.approx(-whole["logprob"] / math.log(2) / 19)
    assert whole["is_greedy"] is False


@pytest.mark.reported("a newcomer's first hour: the line of a dataset was refused")
def test_a_line_can_be_an_object_with_a_text(tiny_model: Path, tmp_path: Path, invoke: Any) -> None:
    """Its other fields are ignored. `--field` names the text's field."""
    options = {"invoke": invoke, "model": tiny_model}
    plain, row = score_lines(tmp_path, "The king.", {"text": "The king.", "id": 7}, **options)
    lines = [{"story": "The king.", "text": 1, "context": ""}]
    [named] = score_lines(tmp_path, *lines, options=["--field", "story"], **options)
    assert plain == row | {"index": 0} == named


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--field", "text"], "--field needs --jsonl"),
        (["--jsonl", "--format", "json"], "leave out --format"),
        (["--jsonl", "--model", "a", "--model", "b"], "--jsonl takes only one --model"),
    ],
)
def test_options_that_exclude_each_other_are_named(
    options: list[str], message: str, text_file: Path, invoke: Any
) -> None:
    result = invoke("evaluate", str(text_file), *options)
    assert (result.exit_code, message in result.stderr) == (2, True)


@pytest.mark.parametrize("line", ['"a"', '{"text": "a"}', '{"story": 1}', "[]"])
def test_a_line_without_the_field_is_named(line: str, tiny_model: Path, tmp_path: Path, invoke: Any) -> None:
    (tmp_path / "bad.jsonl").write_text(line)
    result = invoke("evaluate", str(tmp_path / "bad.jsonl"), "--jsonl", "--field", "story", "--model", str(tiny_model))
    assert (result.exit_code, "line 1 must be an object with the string story" in result.stderr) == (1, True)


def test_a_file_can_have_more_lines_than_run_at_once(tiny_model: Path, tmp_path: Path, invoke: Any) -> None:
    texts = [f"{'x' * (index % 5)}{index}" for index in range(600)]
    lines = score_lines(tmp_path, *texts, invoke=invoke, model=tiny_model)
    assert [(line["index"], line["num_bytes"]) for line in lines] == [(i, len(text)) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "is not UTF-8"),
        (b"\n", "has no text"),
        (b'"a"\n"a', "line 2 is not valid JSON"),
        (b'"a"\n\n[1]', "line 3 must be a string"),
        (b'{"context": "a"}', "line 1 must be a string"),
        (b'{"text": "a", "context": "b"}', "line 1 must be a string, an object with the string text, or"),
        (b'{"context": "a", "continuation": "b", "id": 1}', "line 1 must be a string"),
        (b'{"context": "a", "continuation": "b", "text": "c"}', "line 1 must be a string"),
        (b'{"text": 1}', "line 1 must be a string"),
        (b'"a"\n""', "line 2 is empty"),
        (b'"a"\n"\\ud800"', "line 2: prompt is not Unicode text"),
        (b'"' + b"a" * 64 + b'"', "you requested 65 tokens (64 in "),
    ],
)
def test_an_invalid_line_is_named_before_any_score(
    content: bytes, message: str, tiny_model: Path, tmp_path: Path, invoke: Any
) -> None:
    (tmp_path / "bad.jsonl").write_bytes(content)
    result = invoke("evaluate", str(tmp_path / "bad.jsonl"), "--jsonl", "--model", str(tiny_model))
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stdout == ""


def test_lines_are_scored_in_one_precision(tiny_model: Path, text_file: Path, invoke: Any) -> None:
    result = invoke("evaluate", str(text_file), "--jsonl", "--precision", "f32", "--precision", "int8")
    assert (result.exit_code, "one --precision" in result.stderr) == (2, True)
