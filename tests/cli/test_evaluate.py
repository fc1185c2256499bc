from __future__ import annotations

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
