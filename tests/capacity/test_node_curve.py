"""Node curves: interpolation, the number of slots, and the file format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.capacity.curve_file import EXAMPLE_CURVE, MAX_FILE_BYTES, read_node_curve, write_node_curve
from distilgpt2_api.core.errors import InvalidRequestError


@pytest.mark.parametrize(("num_sequences", "step_s"), [(1, 0.010), (2, 0.011), (11, 0.020), (12, 0.021), (31, 0.040)])
def test_steps_are_interpolated_linearly(num_sequences: int, step_s: float, build_curve: Any) -> None:
    assert build_curve().step_s(num_sequences) == pytest.approx(step_s)


@pytest.mark.parametrize(("tokens_each", "num_slots"), [(32, 31), (160, 20), (161, 16), (3200, 1), (3201, 0)])
def test_slots_are_limited_by_the_curve_and_by_whole_blocks_of_the_kv_cache(
    tokens_each: int, num_slots: int, build_curve: Any
) -> None:
    assert build_curve(kv_cache_tokens=3200).num_slots(tokens_each) == num_slots


def test_a_written_curve_can_be_read(tmp_path: Path, build_curve: Any) -> None:
    write_node_curve(build_curve(), tmp_path / "curve.json")
    assert read_node_curve(tmp_path / "curve.json") == build_curve()


def test_a_curve_that_cannot_be_written_is_an_error(tmp_path: Path, build_curve: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"can't write .*nowhere/curve\.json: No such file"):
        write_node_curve(build_curve(), tmp_path / "nowhere" / "curve.json")


def test_the_example_names_its_machine() -> None:
    curve = read_node_curve(EXAMPLE_CURVE)
    assert "2026-" in curve.measured_on
    assert curve.max_num_sequences == 64


STEP = {"num_sequences": 1, "step_s": 0.01}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format must be 1, not 2"),
        ({"more": 1}, "'more' is unknown"),
        ({"model": None}, "model must be one line of at most 500 characters"),
        ({"model": "two\nlines"}, "model must be one line"),
        ({"measured_on": "x" * 501}, "measured_on must be one line"),
        ({"num_positions": 0}, r"num_positions must be a whole number from 1 to \d+, not 0"),
        ({"num_positions": True}, "num_positions must be a whole number"),
        ({"num_positions": 1.5}, "num_positions must be a whole number"),
        ({"kv_cache_tokens": 31}, "kv_cache_tokens must be a whole number from 32"),
        ({"prefill_tokens_per_s": 0}, "prefill_tokens_per_s must be a number above 0"),
        ({"prefill_tokens_per_s": float("nan")}, "prefill_tokens_per_s must be a number above 0"),
        ({"decode_steps": {}}, "decode_steps must be a list of objects"),
        ({"decode_steps": [{"num_sequences": 1}]}, "decode_steps must be a list of objects with num_sequences and"),
        ({"decode_steps": []}, "num_sequences of decode_steps must start at 1 and increase"),
        ({"decode_steps": [STEP | {"num_sequences": 2}]}, "num_sequences of decode_steps must start at 1 and increase"),
        ({"decode_steps": [STEP, STEP]}, "num_sequences of decode_steps must start at 1 and increase"),
        ({"decode_steps": [STEP | {"num_sequences": 4097}]}, "num_sequences must be a whole number from 1 to 4096"),
        ({"decode_steps": [STEP | {"step_s": -1}]}, "step_s must be a number above 0 and at most 3600"),
        ({"max_step_tokens": 30}, "max_step_tokens must be at least 31, the num_sequences of the last step"),
    ],
)
def test_a_field_outside_its_limits_is_refused_by_name(
    change: dict[str, Any], message: str, tmp_path: Path, build_curve: Any
) -> None:
    path = tmp_path / "curve.json"
    write_node_curve(build_curve(), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InvalidRequestError, match=f"curve.json: {message}") as caught:
        read_node_curve(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[]", "a node curve must be a JSON object"),
        (b'{"format": 1}', "is missing"),
        (b" " * (MAX_FILE_BYTES + 1), "is not a node curve: more than 1048576 bytes"),
    ],
)
def test_a_file_that_is_not_a_curve_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "curve.json").write_bytes(content)
    with pytest.raises(InvalidRequestError, match=message):
        read_node_curve(tmp_path / "curve.json")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"can't read .*: No such file"):
        read_node_curve(tmp_path / "curve.json")
