"""The append-only output file: recovery after a kill, locks, full disks, and files of other programs."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.batch.errors import BatchFileError
from distilgpt2_api.batch.files.formats import JsonLines
from distilgpt2_api.batch.files.line_ids import CompletedLines
from distilgpt2_api.batch.files.output_file import OutputFile, note_answered
from distilgpt2_api.batch.lines import Answer

TABLE = b'title,prompt\n"a ""x""\nb",one\nc,"two\n\n"\n'
BODY = b'{"choices":[{"text":"\\n,\\"","finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}'


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[OutputFile]:
    file = OutputFile(path, file_format=options.get("file_format") or JsonLines())
    try:
        yield file
    finally:
        file.close()


def recovered(path: Path, **options: Any) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    with opened(path, **options) as file:
        file.recover(lambda number, digest: found.append((number, digest)))
        assert file.num_bytes == path.stat().st_size
    return found


@pytest.fixture
def write_all(open_input: Callable[..., Any], requests: Any, tmp_path: Path) -> Callable[[str], Any]:
    """Writes answers to a complete input: returns format, output, and each line's end, number and digest."""

    def written(suffix: str) -> Any:
        source = open_input(TABLE if suffix == ".csv" else requests(["one", "t\nwo"]), name=f"in{suffix}")
        path = tmp_path / f"out{suffix}"
        ends = []
        with opened(path, file_format=source.format) as file:
            file.recover(lambda *_: None)
            for record in source.records():
                line = source.format.parse(record)
                file.append(source.format.write(record, line, Answer(status_code=200, request_id="r", body=BODY)))
                ends.append((file.num_bytes, (record.number, record.digest)))
        return source.format, path, ends

    return written


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_file_cut_at_any_byte_keeps_exactly_its_complete_lines(write_all: Any, suffix: str) -> None:
    """Also between the two bytes of a line end, and between two quotation marks."""
    file_format, path, ends = write_all(suffix)
    content = path.read_bytes()
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        done = recovered(path, file_format=file_format)
        assert done == [line for end, line in ends if end <= size]
        whole = max([len(file_format.header), *(end for end, _ in ends if end <= size)])
        assert path.read_bytes() == content[:whole]


@pytest.mark.parametrize(
    "content",
    [
        b"my only notes",
        b"notes\n",
        b'{"id":"x"}\n',
        b'{"id":"batch_req_1"}\n',
        b'{"id":5}\n',
        b"[1]\n",
        b"{}",
        b'{"custom_id":"a","body":{}}\n',
        b'{"id":"batch_req_1_0123456789abcdef"}\n\0\0\0\0',
    ],
)
def test_a_foreign_file_is_refused_and_unchanged(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    with pytest.raises(BatchFileError, match=r"out\.jsonl is not an output .* --overwrite"):
        recovered(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"name,prompt\r\n", b"notes", b'batch_id,"\n', b"batch_id,name\n1,2\n"])
def test_a_table_with_other_columns_is_refused_and_unchanged(content: bytes, tmp_path: Path, open_input: Any) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(content)
    with pytest.raises(BatchFileError, match="is not an output"):
        recovered(path, file_format=open_input(TABLE, name="in.csv").format)
    assert path.read_bytes() == content


def test_a_row_of_invalid_csv_is_refused(tmp_path: Path, open_input: Any) -> None:
    path, file_format = tmp_path / "out.csv", open_input(TABLE, name="in.csv").format
    path.write_bytes(file_format.header + b'"batch_req_1_0123456789abcdef" x,y\n')
    with pytest.raises(BatchFileError, match="is not an output"):
        recovered(path, file_format=file_format)


def test_an_output_must_be_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path / "none" / "out", "can't open .*: No such file or directory"),
    ):
        with pytest.raises(BatchFileError, match=message), opened(path):
            pass


def test_only_one_process_at_a_time_writes_a_file(tmp_path: Path) -> None:
    with (
        opened(tmp_path / "out"),
        pytest.raises(BatchFileError, match="out is locked"),
        opened(tmp_path / "out"),
    ):
        pass
    with opened(tmp_path / "out"):
        pass


@pytest.mark.parametrize(("content", "message"), [(None, "No such file"), (b"new", "replaced while it was opened")])
def test_a_file_deleted_before_it_is_locked_is_refused(
    content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise lines would be written to a file without a name."""
    path = tmp_path / "out"

    def lock(descriptor: int, operation: int) -> None:
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    monkeypatch.setattr(fcntl, "flock", lock)
    with pytest.raises(BatchFileError, match=message), opened(path):
        pass


def test_restart_deletes_the_content(write_all: Any) -> None:
    file_format, path, _ = write_all(".csv")
    with opened(path, file_format=file_format) as file:
        file.restart()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("room", [0, 1, 7])
def test_a_full_disk_leaves_no_partial_line(room: int, tmp_path: Path) -> None:
    """A limit on the file size ends a write in the middle, as a full disk does."""
    path = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(path) as file:
        file.append(b"first\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (6 + room, hard))
        try:
            with pytest.raises(BatchFileError, match=r"can't write .*out: File too large"):
                file.append(b"second\n" * 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == b"first\n"
        file.append(b"second\n")
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_full_disk_for_temporary_tables_is_an_error() -> None:
    """A table that outgrows memory is spilled to disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(completed: CompletedLines) -> None:
        for number in range(1, 200_000):
            completed.add(number, f"{number:016x}")

    with CompletedLines() as completed:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(BatchFileError, match="can't write the temporary file"):
                fill(completed)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_empty_file_can_be_deleted_at_close(tmp_path: Path) -> None:
    for name, content, is_there in (("a", b"", False), ("b", b"x\n", True)):
        file = OutputFile(tmp_path / name, file_format=JsonLines())
        file.append(content)
        file.close(is_kept_empty=False)
        assert (tmp_path / name).exists() == is_there


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_complete_lines_can_be_read_while_another_process_appends(write_all: Any, suffix: str) -> None:
    """Up to the given size: later lines, or a partial one, are ignored."""
    file_format, path, ends = write_all(suffix)
    for num_ended, (num_bytes, _) in enumerate(ends, start=1):
        with opened(path, file_format=file_format), CompletedLines() as completed:
            note_answered(path, file_format=file_format, num_bytes=num_bytes, note=completed.add)
            assert all(completed.find(number) == digest for _, (number, digest) in ends[:num_ended])
            assert completed.num_lines == num_ended


def test_a_missing_output_is_an_error_for_readers(tmp_path: Path) -> None:
    with pytest.raises(BatchFileError, match=r"can't read .*out: No such file"):
        note_answered(tmp_path / "out", file_format=JsonLines(), num_bytes=1, note=lambda *_: None)
