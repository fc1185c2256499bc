"""Stages a model beside the store, then moves it in with one rename."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distilgpt2_api.core.errors import ModelError
from distilgpt2_api.model.hub.store import PULL_MANIFEST, ModelStore


@contextmanager
def gather_model(store: ModelStore, name: str, commit: str) -> Iterator[Path]:
    """A folder for a model's files. It becomes the model at the end; after an error it stays for the next try.

    Raises ModelError if another process stages the same model, OSError if the disk can't be written.
    """
    target = store.folder_of(name)
    folder = store.home / "pulling" / f"{target.name}@{commit}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock_file = folder.with_name(f"{folder.name}.lock")
    with lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelError(f"another process is fetching {name} to {folder}") from None
        folder.mkdir(exist_ok=True)
        yield folder
        sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        record = {"name": name, "commit": commit, "files": sizes}
        (folder / PULL_MANIFEST).write_text(json.dumps(record, indent=2) + "\n")
        _replace_folder(target, folder)
        lock_file.unlink()


def _replace_folder(target: Path, folder: Path) -> None:
    """A running server keeps its open files; a starting one finds the old model or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        old = folder.with_name(f"{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        folder.rename(target)
        shutil.rmtree(old)
    else:
        folder.rename(target)
