"""An append-only output file, which a later run can continue after a kill, a power cut or a full disk."""

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

from distilgpt2_api.batch.errors import BatchFileError
from distilgpt2_api.batch.files.formats import Format
from distilgpt2_api.batch.files.line_ids import parse_line_id
from distilgpt2_api.batch.files.records import InputRecord, read_records


def note_answered(path: Path, *, file_format: Format, num_bytes: int, note: Callable[[int, str], None]) -> None:
    """Calls `note` with number and digest of each line in the output's first `num_bytes`, which were recovered before.

    Another process may append meanwhile. Raises BatchFileError.
    """
    try:
        with path.open("rb") as file:
            for record in read_records(file, has_quotes=file_format.has_quotes):
                if record.offset >= num_bytes:
                    return
                if record.offset or not file_format.header:
                    note(*parse_line_id(file_format.read_id(record.content or b"")))
    except OSError as error:
        raise BatchFileError(f"can't read {path}: {error.strerror}") from None


class OutputFile:
    """Owns the file and a lock on it, which ends with the process at the latest."""

    def __init__(self, path: Path, *, file_format: Format) -> None:
        """Raises BatchFileError if the file can't be opened, or another process has locked it."""
        self.path = path
        self._format = file_format
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._failed("open", error) from None
        try:
            self._lock()
        except BaseException:
            os.close(self._descriptor)
            raise
        self.num_bytes = os.fstat(self._descriptor).st_size
        """Read-only for others. After recovery: the size of the complete lines."""

    def recover(self, note: Callable[[int, str], None]) -> None:
        """Calls `note` with number and digest of each line, and removes a truncated last line.

        `note` may raise ValueError. Raises BatchFileError for that, and for a line that isn't from this program.
        """
        header = self._format.header
        num_whole_bytes = 0
        try:
            with open(self._descriptor, "rb", closefd=False) as file:
                for record in read_records(file, has_quotes=self._format.has_quotes):
                    self._check(record, note)
                    if record.is_ended:
                        num_whole_bytes = record.offset + record.num_bytes
        except OSError as error:
            raise self._failed("read", error) from None
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise BatchFileError(
                f"{self.path} is not an output for this input, after byte {num_whole_bytes}: {error}; "
                "name another output, or start over with --overwrite"
            ) from None
        self._truncate(num_whole_bytes)
        if not num_whole_bytes and header:
            self.append(header)

    def restart(self) -> None:
        """Deletes the content."""
        self._truncate(0)

    def append(self, line: bytes) -> None:
        """Writes the complete line or nothing. Raises BatchFileError, for example if the disk is full."""
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self._truncate(self.num_bytes)
            raise self._failed("write", error) from None
        self.num_bytes += len(line)

    def close(self, *, is_kept_empty: bool = True) -> None:
        """Syncs the file to disk and closes it. Raises BatchFileError."""
        try:
            os.fsync(self._descriptor)
            if not self.num_bytes and not is_kept_empty:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed("write", error) from None
        finally:
            os.close(self._descriptor)

    def _lock(self) -> None:
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise BatchFileError(f"{self.path} is not a regular file")
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except BlockingIOError:
            raise BatchFileError(f"{self.path} is locked: another batch is writing to it") from None
        except OSError as error:
            raise self._failed("lock", error) from None
        if not is_ours:  # another process has just deleted its empty file
            raise BatchFileError(f"{self.path} was replaced while it was opened: try again")

    def _check(self, record: InputRecord, note: Callable[[int, str], None]) -> None:
        """Raises ValueError, KeyError, TypeError or IndexError if it isn't a line of ours, or the start of one."""
        content = record.content or b""
        is_header = record.offset == 0 and bool(self._format.header)
        expected = self._format.header if is_header else self._format.beginning
        if not record.is_ended:
            if content[: len(expected)] != expected[: len(content)]:
                raise ValueError("not an answer")
        elif not is_header:
            note(*parse_line_id(self._format.read_id(content)))
        elif content != expected.rstrip():
            raise ValueError("its columns differ from those of this input's output")

    def _truncate(self, num_bytes: int) -> None:
        try:
            os.ftruncate(self._descriptor, num_bytes)
        except OSError as error:
            raise self._failed("write", error) from None
        self.num_bytes = num_bytes

    def _failed(self, verb: str, error: OSError) -> BatchFileError:
        return BatchFileError(f"can't {verb} {self.path}: {error.strerror}")
