"""The reading task skips lines that were answered before its assignment. Needs no cluster."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

from distilgpt2_api.batch.files.cluster_pipe import Assignment
from distilgpt2_api.batch.files.formats import JsonLines
from distilgpt2_api.batch.files.input_file import InputFile
from distilgpt2_api.batch.lines import DUPLICATE_ID, Answer, LineError
from distilgpt2_api.scale_out.ray_batch.line_groups import LineGroups, contents_of

ANSWER = Answer(status_code=200, request_id="r", body=b"{}")


def ask(custom_id: str) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": {}}) + "\n"


def read(assignment: Assignment, num_group_lines: int) -> list[Any]:
    (task,) = LineGroups(assignment, num_group_lines=num_group_lines).get_read_tasks(1)
    return [pickle.loads(content) for block in task() for content in contents_of(block)]


def assignment(folder: Path, *, num_output_bytes: int, max_lines: int = 100) -> Assignment:
    (folder / "errors").touch()
    return Assignment(
        source=folder / "in.jsonl",
        max_line_bytes=1000,
        output=folder / "output",
        num_output_bytes=num_output_bytes,
        errors=folder / "errors",
        num_errors_bytes=0,
        max_lines=max_lines,
        is_ordered=True,
        address="auto",
        num_replicas=None,
        num_cores=1,
        max_num_sequences=1,
    )


def test_pending_lines_are_grouped_the_same_in_every_read(tmp_path: Path) -> None:
    """Line 2 was answered before. Line 4 was answered later: a repeated task reads it again."""
    (tmp_path / "in.jsonl").write_text("".join(map(ask, "abcdeb")))
    source = InputFile(tmp_path / "in.jsonl", max_line_bytes=1000, parameters=())
    records = list(source.records())
    answers = [JsonLines().write(records[index], source.format.parse(records[index]), ANSWER) for index in (1, 3)]
    given = assignment(tmp_path, num_output_bytes=len(answers[0]))
    (tmp_path / "output").write_bytes(answers[0])
    groups = read(given, 2)
    (tmp_path / "output").write_bytes(b"".join(answers))

    for some in (groups, read(given, 2)):
        assert [[one.record.number for one in group.lines] for group in some] == [[1, 3], [4, 5], [6]]
        assert [one.position for group in some for one in group.lines] == list(range(5))
        last = some[-1].lines[0].line
        assert isinstance(last, LineError)
        assert last.code == DUPLICATE_ID, "of a line that is answered, too"


def test_an_assignment_is_limited(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(map(ask, "abcdef")))
    (tmp_path / "output").touch()
    groups = read(assignment(tmp_path, num_output_bytes=0, max_lines=3), 2)
    assert [[one.record.number for one in group.lines] for group in groups] == [[1, 2], [3]]


def test_a_missing_input_is_reported_in_a_group(tmp_path: Path) -> None:
    (tmp_path / "output").touch()
    (group,) = read(assignment(tmp_path, num_output_bytes=0), 2)
    assert (group.lines, group.failure) == ([], f"can't read {tmp_path}/in.jsonl: No such file or directory")
