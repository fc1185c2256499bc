"""Reads the files of a model folder, which may be hostile: without blocking, inside the folder and within size limits.

All reads of a model folder go through this module. Every error message is one line that names the file.
"""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from reprlib import Repr
from typing import Any

from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.json_members import unique_members

MAX_JSON_VALUES = 200_000
"""A value takes Python about a hundred bytes, and a file of `[],[],[]` has one in every three bytes, so values are
counted before they are parsed. The safetensors header of a GPT-2 with a thousand layers has 110 000."""
MAX_SHOWN_CHARACTERS = 100
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""Git writes a file that begins like this in place of the real one if git-lfs is missing or skipped it."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""UTF-8's byte-order mark. Editors on Windows write it before the text, of which it is no part."""

_REPR = Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = MAX_SHOWN_CHARACTERS


def safe_repr(value: object) -> str:
    """The repr of an untrusted value for a message: one short line, however long or deeply nested the value is."""
    return _REPR.repr(value)


def safe_name(name: str) -> str:
    """An untrusted name for a message: unchanged if it is short and printable, else its repr."""
    return name if len(name) <= MAX_SHOWN_CHARACTERS and name.isprintable() else safe_repr(name)


def has_file(path: Path) -> bool:
    """Whether a file of that name exists, even a broken link: reading it then reports the error.

    Raises ModelFormatError if the folder's permissions don't allow the check.
    """
    return _read_mode(path, os.lstat) is not None


def is_folder(path: Path) -> bool:
    """Raises ModelFormatError as `has_file` does."""
    mode = _read_mode(path, os.stat)
    return mode is not None and stat.S_ISDIR(mode)


def resolve_inside(path: Path) -> Path:
    """Resolves a path in a model folder. Raises ModelFormatError if a link leads out of the folder.

    Links of the hub's cache are allowed: files in `snapshots/<revision>/` are links into `blobs/`, beside `snapshots`.
    """
    try:
        home = path.parent.resolve()
        target = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a cycle of links; ValueError: a NUL
        raise ModelFormatError(f"{path}: can't be read: {_reason(error)}") from None
    allowed = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(target.is_relative_to(root) for root in allowed):
        raise ModelFormatError(f"{path}: a link that leads out of the model folder")
    return target


def open_model_file(path: Path) -> int:
    """Opens a regular file inside the folder of `path` for reading. The caller closes the descriptor."""
    return _open_regular(resolve_inside(path), path, os.O_NOFOLLOW)


def read_model_file(path: Path, max_bytes: int) -> bytes:
    """Reads a whole file inside the folder of `path`."""
    return _read_all(open_model_file(path), path, max_bytes)


def read_operator_file(path: Path, max_bytes: int) -> bytes:
    """Reads a whole file whose path the operator has set. Its links may lead anywhere."""
    return _read_all(_open_regular(path, path, 0), path, max_bytes)


def count_json_values(path: Path, content: bytes, max_values: int) -> None:
    """Refuses JSON with more than `max_values` values, before it is parsed."""
    num_values = content.count(b",") + content.count(b"[") + content.count(b"{")
    if num_values > max_values:
        raise ModelFormatError(f"{path}: has {num_values} JSON values; the maximum is {max_values}")


def decode_text(path: Path, content: bytes) -> str:
    """Decodes UTF-8 and drops a byte-order mark. Raises ModelFormatError."""
    try:
        return content.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None


def parse_json_object(path: Path, content: bytes, what: str = "") -> dict[str, Any]:
    """Parses an object and refuses duplicate keys. `what` names the part of the file, for messages."""
    count_json_values(path, content, MAX_JSON_VALUES)
    try:
        value = json.loads(content.removeprefix(BYTE_ORDER_MARK).decode(), object_pairs_hook=unique_members)
    except (ValueError, RecursionError) as error:  # ValueError: UnicodeDecodeError and JSONDecodeError
        raise ModelFormatError(f"{path}: {what}not valid JSON: {_reason(error)}") from None
    if not isinstance(value, dict):
        raise ModelFormatError(f"{path}: {what}not a JSON object")
    return value


def list_folder(path: Path) -> list[str]:
    """Names in a folder; empty if there is no folder. Raises ModelFormatError as `has_file` does."""
    try:
        return [entry.name for entry in path.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ModelFormatError(f"{path}: can't be read: {_reason(error)}") from None


def _read_mode(path: Path, ask: Callable[[Path], os.stat_result]) -> int | None:
    """None if nothing exists there. (ValueError: no file has a name with a NUL.)"""
    try:
        return ask(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise ModelFormatError(f"{path}: can't be read: {_reason(error)}") from None


def _open_regular(target: Path, path: Path, flags: int) -> int:
    """Checks the type before and after opening: a pipe would block, and opening a device may have side effects."""
    try:
        if not stat.S_ISREG(target.stat().st_mode):
            raise ModelFormatError(f"{path}: not a file")
        descriptor = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
        try:
            _check_open(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
    except (OSError, ValueError) as error:
        raise ModelFormatError(f"{path}: can't be read: {_reason(error)}") from None
    return descriptor


def _check_open(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ModelFormatError(f"{path}: not a file")
    if os.pread(descriptor, len(LFS_POINTER), 0) == LFS_POINTER:
        raise ModelFormatError(
            f"{path}: a pointer of git-lfs, not the file itself; fetch it with `git lfs pull` in the clone, or the "
            "whole model with `distilgpt2-api pull`"
        )


def _read_all(descriptor: int, path: Path, max_bytes: int) -> bytes:
    """Closes the descriptor."""
    with os.fdopen(descriptor, "rb") as file:
        try:
            num_bytes = os.fstat(descriptor).st_size
            if num_bytes > max_bytes:
                raise ModelFormatError(f"{path}: has {num_bytes} bytes; the maximum is {max_bytes}")
            return file.read(num_bytes)
        except OSError as error:
            raise ModelFormatError(f"{path}: can't be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    if isinstance(error, PermissionError):
        reason += f" for user {os.geteuid()}, who runs this process"
    return " ".join(reason.split())[: 2 * MAX_SHOWN_CHARACTERS]
