"""Files of a model folder, as a stranger may have left them: opened without waiting, within the folder, within bounds.

All that is read from a model folder comes through here, and every message is one line that names the file.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from reprlib import Repr
from typing import Any

from distilgpt2_api.core.errors import ModelFormatError

MAX_JSON_VALUES = 200_000
"""A value costs Python a hundred bytes, and a file of `[],[],[]` has one for every three of its own: counted before
they are made. The safetensors header of a GPT-2 of a thousand layers has 110 000.
"""
MAX_SHOWN_CHARACTERS = 100
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""What git leaves in a file's place where git-lfs is not installed, or was told to skip it."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Of UTF-8: Windows' editors put it before a text, and it is no part of it."""

_REPR = Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = MAX_SHOWN_CHARACTERS


def safe_repr(value: object) -> str:
    """A stranger's value for a message: its repr, in one line and short, however long or deep the value is."""
    return _REPR.repr(value)


def safe_name(name: str) -> str:
    """A stranger's name for a message: as it is where that is short and printable."""
    return name if len(name) <= MAX_SHOWN_CHARACTERS and name.isprintable() else safe_repr(name)


def has_file(path: Path) -> bool:
    """Whether there is anything of that name, be it a link to nowhere: what is there is read or refused.

    Raises ModelFormatError where that can't be told, for the folder is another user's.
    """
    return _read_mode(path, os.lstat) is not None


def is_folder(path: Path) -> bool:
    """Raises ModelFormatError as `has_file` does."""
    mode = _read_mode(path, os.stat)
    return mode is not None and stat.S_ISDIR(mode)


def resolve_inside(path: Path) -> Path:
    """What `path`, a file of a model folder, is in the end. A link may not lead out of its folder, except as the hub's
    cache has it: `snapshots/<revision>/` holds links into `blobs/` beside `snapshots`.
    """
    try:
        home = path.parent.resolve()
        target = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle; ValueError: a NUL
        raise ModelFormatError(f"{path}: can't be read: {_reason(error)}") from None
    allowed = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(target.is_relative_to(root) for root in allowed):
        raise ModelFormatError(f"{path}: a link that leads out of the model folder")
    return target


def open_model_file(path: Path) -> int:
    """A descriptor to read from, the caller's to close; of a regular file within the folder that `path` names."""
    return _open_regular(resolve_inside(path), path, os.O_NOFOLLOW)


def read_model_file(path: Path, max_bytes: int) -> bytes:
    """The whole of a file within the folder that `path` names."""
    return _read_all(open_model_file(path), path, max_bytes)


def read_operator_file(path: Path, max_bytes: int) -> bytes:
    """The whole of a file that the operator named himself, wherever links lead."""
    return _read_all(_open_regular(path, path, 0), path, max_bytes)


def count_json_values(path: Path, content: bytes, max_values: int) -> None:
    """Refuses JSON that has more values than that, before any of them is made."""
    num_values = content.count(b",") + content.count(b"[") + content.count(b"{")
    if num_values > max_values:
        raise ModelFormatError(f"{path}: has {num_values} JSON values; more than {max_values} are not read")


def decode_text(path: Path, content: bytes) -> str:
    """UTF-8, without its byte-order mark. Raises ModelFormatError."""
    try:
        return content.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None


def parse_json_object(path: Path, content: bytes, what: str = "") -> dict[str, Any]:
    """`what`: the part of the file that `content` is, for the messages. A key that occurs twice is refused."""
    count_json_values(path, content, MAX_JSON_VALUES)
    try:
        value = json.loads(content.removeprefix(BYTE_ORDER_MARK).decode(), object_pairs_hook=_unique_pairs)
    except (ValueError, RecursionError) as error:  # ValueError: UnicodeDecodeError and JSONDecodeError
        raise ModelFormatError(f"{path}: {what}not valid JSON: {_reason(error)}") from None
    if not isinstance(value, dict):
        raise ModelFormatError(f"{path}: {what}not a JSON object")
    return value


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a key occurs twice")
    return unique


def list_folder(path: Path) -> list[str]:
    """Names in a folder; none where it isn't there. Raises ModelFormatError as `has_file` does."""
    try:
        return [entry.name for entry in path.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ModelFormatError(f"{path}: can't be read: {_reason(error)}") from None


def _read_mode(path: Path, ask: Callable[[Path], os.stat_result]) -> int | None:
    """None where nothing is. (A name with a NUL, a ValueError, can't be.)"""
    try:
        return ask(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise ModelFormatError(f"{path}: can't be read: {_reason(error)}") from None


def _open_regular(target: Path, path: Path, flags: int) -> int:
    """Opening a pipe would wait for its other end, and a device may do anything: looked at before and after."""
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
            f"{path}: a pointer of git-lfs, not the file itself; fetch that with `git lfs pull` in the clone, or the "
            "whole model with `distilgpt2-api pull`"
        )


def _read_all(descriptor: int, path: Path, max_bytes: int) -> bytes:
    """Closes the descriptor."""
    with os.fdopen(descriptor, "rb") as file:
        try:
            num_bytes = os.fstat(descriptor).st_size
            if num_bytes > max_bytes:
                raise ModelFormatError(f"{path}: has {num_bytes} bytes; more than {max_bytes} are not read")
            return file.read(num_bytes)
        except OSError as error:
            raise ModelFormatError(f"{path}: can't be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    if isinstance(error, PermissionError):
        reason += f" for user {os.geteuid()}, as whom this process runs"
    return " ".join(reason.split())[: 2 * MAX_SHOWN_CHARACTERS]
