"""The pipe's messages survive serialization, and an incomplete frame is dropped."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

from distilgpt2_api.batch.custom_ids import CustomIds
from distilgpt2_api.batch.files.cluster_pipe import Assignment, Frame, FrameKind, read_frames
from distilgpt2_api.batch.files.input_file import InputFile
from distilgpt2_api.batch.files.line_ids import CompletedLines
from distilgpt2_api.batch.files.pending_lines import PendingLines
from distilgpt2_api.batch.lines import InputLine, LineError

FRAMES = [
    Frame(kind=FrameKind.ANSWERED, position=1 << 40, num_bytes=7, content=b'{"a": 1}\n'),
    Frame(kind=FrameKind.FAILED, position=0, num_bytes=1 << 40, content=b""),
    Frame(kind=FrameKind.LOST, content="a worker is gone …".encode()),
    Frame(kind=FrameKind.ENDED),
]


def test_an_assignment_survives_serialization() -> None:
    assignment = Assignment(
        source=Path("/in \n.jsonl"),
        max_line_bytes=1000,
        output=Path("/out"),
        num_output_bytes=1,
        errors=Path("/err"),
        num_errors_bytes=0,
        max_lines=5,
        is_ordered=True,
        address="auto",
        num_replicas=None,
        num_cores=2,
        max_num_sequences=64,
    )
    line = assignment.to_json()
    assert line.count(b"\n") == 1
    assert Assignment.from_json(line) == assignment


def test_frames_survive_serialization_and_an_incomplete_one_is_dropped() -> None:
    content = b"".join(frame.to_bytes() for frame in FRAMES)
    assert list(read_frames(io.BytesIO(content))) == FRAMES
    for num_bytes in (1, 3, len(FRAMES[-1].to_bytes()) - 1):
        assert list(read_frames(io.BytesIO(content[:-num_bytes]))) == FRAMES[:-1]
    assert list(read_frames(io.BytesIO(FRAMES[0].to_bytes()[:-1]))) == []


def test_lines_and_their_errors_survive_pickling(open_input: Callable[..., InputFile]) -> None:
    """Ray sends them pickled."""
    fields = '"method": "POST", "url": "/v1/completions"'
    content = f'{{"custom_id": "a", {fields}, "body": {{}}}}\n{{"custom_id": "b", {fields}, "body": 1}}\n'.encode()
    with CompletedLines() as completed, CustomIds() as custom_ids:
        good, bad = pickle.loads(
            pickle.dumps(list(PendingLines(open_input(content), completed=completed, custom_ids=custom_ids)))
        )
    assert (good.position, good.line) == (0, InputLine(number=1, custom_id="a", url="/v1/completions", body=b"{}"))
    assert isinstance(bad.line, LineError)
    assert (bad.position, bad.record.number, bad.line.number, bad.line.custom_id) == (1, 2, 2, "b")
    assert (bad.line.code, bad.line.param) == ("invalid_request", "body")
    assert str(bad.line) == "body: must be a JSON object"
