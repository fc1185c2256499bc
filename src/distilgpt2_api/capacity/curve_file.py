"""Node curves on disk: a JSON object with the fields of `NodeCurve`, each checked against its limits."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distilgpt2_api.capacity.node_curve import DecodeStep, NodeCurve
from distilgpt2_api.core.config import BLOCK_SIZE
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.model_files import safe_repr

EXAMPLE_CURVE = Path(__file__).with_name("example_curve.json")
"""DistilGPT-2's shape on the machine that the file names: a first estimate, not the reader's machine."""

FORMAT = 1
MAX_FILE_BYTES = 1 << 20
MAX_COUNT = 1 << 40
MAX_STEP_S = 3600.0
MAX_SEQUENCES = 4096
MAX_CHARACTERS = 500
FIELDS = frozenset({"format", *NodeCurve.__dataclass_fields__})


def write_node_curve(curve: NodeCurve, path: Path) -> None:
    """Raises InvalidRequestError if the file can't be written."""
    try:
        path.write_text(json.dumps({"format": FORMAT, **asdict(curve)}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"can't write {path}: {error.strerror}") from None


def read_node_curve(path: Path) -> NodeCurve:
    """Raises InvalidRequestError: one line with the file, the field and its limit."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidRequestError(f"can't read {path}: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise InvalidRequestError(f"{path} is not a node curve: more than {MAX_FILE_BYTES} bytes")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidRequestError(f"{path} is not valid JSON") from None
    try:
        return _parse(fields)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{path}: {error}") from None


def _parse(fields: Any) -> NodeCurve:
    if not isinstance(fields, dict):
        raise InvalidRequestError("a node curve must be a JSON object")
    if fields.get("format") != FORMAT:
        raise InvalidRequestError(f"format must be {FORMAT}, not {safe_repr(fields.get('format'))}")
    if fields.keys() != FIELDS:
        wrong = min(fields.keys() ^ FIELDS)
        raise InvalidRequestError(f"{safe_repr(wrong)} is {'missing' if wrong in FIELDS else 'unknown'}")
    curve = NodeCurve(
        measured_on=_text(fields, "measured_on"),
        model=_text(fields, "model"),
        precision=_text(fields, "precision"),
        num_positions=_count(fields, "num_positions"),
        kv_cache_tokens=_count(fields, "kv_cache_tokens", least=BLOCK_SIZE),
        max_step_tokens=_count(fields, "max_step_tokens"),
        prefill_tokens_per_s=_amount(fields, "prefill_tokens_per_s", most=MAX_COUNT),
        decode_steps=_decode_steps(fields["decode_steps"]),
    )
    if curve.max_step_tokens < curve.max_num_sequences:
        raise InvalidRequestError(
            f"max_step_tokens must be at least {curve.max_num_sequences}, the num_sequences of the last step"
        )
    return curve


def _decode_steps(values: Any) -> tuple[DecodeStep, ...]:
    if not isinstance(values, list) or not all(
        isinstance(value, dict) and value.keys() == {"num_sequences", "step_s"} for value in values
    ):
        raise InvalidRequestError("decode_steps must be a list of objects with num_sequences and step_s")
    steps = tuple(
        DecodeStep(
            num_sequences=_count(value, "num_sequences", most=MAX_SEQUENCES),
            step_s=_amount(value, "step_s", most=MAX_STEP_S),
        )
        for value in values
    )
    counts = [step.num_sequences for step in steps]
    if counts[:1] != [1] or counts != sorted(set(counts)):
        raise InvalidRequestError(
            f"num_sequences of decode_steps must start at 1 and increase, not {safe_repr(counts)}"
        )
    return steps


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if isinstance(value, str) and len(value) <= MAX_CHARACTERS and value.isprintable():
        return value
    raise InvalidRequestError(f"{name} must be one line of at most {MAX_CHARACTERS} characters")


def _count(fields: Mapping[str, Any], name: str, *, least: int = 1, most: int = MAX_COUNT) -> int:
    value = fields[name]
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise InvalidRequestError(f"{name} must be a whole number from {least} to {most}, not {safe_repr(value)}")


def _amount(fields: Mapping[str, Any], name: str, *, most: float) -> float:
    value = fields[name]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most and math.isfinite(value):
        return float(value)
    raise InvalidRequestError(f"{name} must be a number above 0 and at most {most:g}, not {safe_repr(value)}")
