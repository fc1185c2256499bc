from __future__ import annotations

import json
import math
import shutil
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
    assert title.startswith(f"tiny: {6 * 20 + 1} tokens of {6 * 19} bytes")
    assert header.split() == ["precision", "perplexity", "bits/byte", "tokens/s"]
    figures = {row.split()[0]: [float(figure) for figure in row.split()[1:]] for row in rows}
    assert list(figures) == ["int8", "bf16", "f32"]
    for precision in ("int8", "bf16"):
        assert figures[precision][0] == pytest.approx(figures["f32"][0], rel=0.05)


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
    assert result.stdout.startswith(f"other: {6 * 20 + 1} tokens of {6 * 19} bytes")


def test_one_precision_alone(tiny_model: Path, text_file: Path, invoke: Any) -> None:
    result = invoke("evaluate", str(text_file), "--model", str(tiny_model), "--precision", "f32")
    assert [line.split()[0] for line in result.stdout.splitlines()[2:]] == ["f32"]


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


def score_lines(folder: Path, *values: Any, invoke: Any, model: Path) -> list[dict[str, Any]]:
    (folder / "texts.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    result = invoke("evaluate", str(folder / "texts.jsonl"), "--jsonl", "--precision", "f32", "--model", str(model))
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
        (b'{"text": "a", "context": "b"}', "line 1 must be a string, or an object with the string text, or with the"),
        (b'{"context": "a", "continuation": "b", "id": 1}', "line 1 must be a string"),
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
