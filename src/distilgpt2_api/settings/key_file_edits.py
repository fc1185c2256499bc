"""Edits the file of API keys: comments, order and everything that is not edited stay as the operator wrote them.

Apart from `key_file.py` because only a command edits: importing tomlkit would slow a server's start.
"""

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import tomlkit

from distilgpt2_api.core.caller import CallerLimits, digest_of
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.settings.key_file import parse_keys, read_text
from distilgpt2_api.settings.key_list import KEY_NAME, KEY_NAME_RULE

KEY_PREFIX = "dg2-"
"""Lets people and secret scanners recognise a key of this service."""


def make_key() -> str:
    """A random key of 256 bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def describe_key(
    name: str, key: str, limits: CallerLimits, *, created: datetime | None = None, expires: datetime | None = None
) -> str:
    """The file's entry for a new key. Raises SettingsError."""
    if not KEY_NAME.fullmatch(name):
        raise SettingsError(f"{name[:100]!r} can't be a key's name: {KEY_NAME_RULE}")
    values = {"created": created, "expires": expires, **asdict(limits)}
    given = {field: value for field, value in values.items() if value is not None}
    return tomlkit.dumps({"keys": {name: {"sha256": digest_of(key.encode()).hex(), **given}}})


@contextmanager
def saved_key(path: Path, key: str) -> Iterator[None]:
    """Writes the key to a new file that only its owner can read. After an exception inside, the file is gone.

    Raises SettingsError, also for a file that exists: it may be the only copy of another key.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SettingsError(f"{path} exists already, maybe with the only copy of a key: choose another file") from None
    except OSError as error:
        raise _unsaved(path, error) from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{key}\n")
            file.flush()
            os.fsync(descriptor)
        yield
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unsaved(path, error) from None
        raise


def _unsaved(path: Path, error: OSError) -> SettingsError:
    return SettingsError(f"can't save the key to {path}: {error.strerror}")


def add_to_key_file(path: Path, entry: str) -> None:
    """Appends an entry from `describe_key`; creates the file if it is missing. On SettingsError nothing has changed."""
    with _locked(path):
        _add(path, entry)


def remove_from_key_file(path: Path, name: str) -> None:
    """Removes one entry, with the comments below its heading. On SettingsError nothing has changed."""
    with _locked(path):
        _remove(path, name)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits for other edits of files in the same folder, so that none reads what another is about to replace.

    The lock is on the folder: one on the file would be on the old file after a replacement. Raises SettingsError.
    """
    try:
        descriptor = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SettingsError(f"can't write the file of API keys {path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _add(path: Path, entry: str) -> None:
    text = read_text(path) if path.exists() else ""
    [added] = parse_keys(entry, path)
    if added.name in {key.name for key in parse_keys(text, path)}:
        raise SettingsError(
            f"{path} already has a key {added.name}; choose another name, or remove it first: "
            f"distilgpt2-api keys remove {added.name} --file {path}"
        )
    separator = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    text += separator + entry
    try:
        parse_keys(text, path)
    except SettingsError:  # both parts alone are right
        raise SettingsError(
            f"can't add the key {added.name} to {path}: its keys are an inline table; write tables [keys.NAME] instead"
        ) from None
    _replace_file(path, text)


def _remove(path: Path, name: str) -> None:
    text = read_text(path)
    before = parse_keys(text, path)
    if name not in {key.name for key in before}:
        raise SettingsError(f"{path} has no key {name[:100]!r}")
    document = tomlkit.parse(text)
    entries: Any = document["keys"]
    del entries[name]
    changed = tomlkit.dumps(document)
    # A mistake here would lock other callers out.
    if parse_keys(changed, path) != tuple(key for key in before if key.name != name):
        raise SettingsError(f"can't remove the key {name!r} from {path} without changing others: remove it by hand")
    _replace_file(path, changed)


def _replace_file(path: Path, text: str) -> None:
    """Atomic: a running service never reads half a file. Others get no access; a group keeps the access it had.

    Raises SettingsError.
    """
    temporary = ""
    try:
        target = path.resolve()
        mode = target.stat().st_mode & 0o660 if target.exists() else 0o600
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise SettingsError(f"can't write the file of API keys {path}: {error.strerror}") from None
