"""The folder in which the workers of one service share what they have counted, so that any of them can tell it all.

Each worker has `ID.lock`, locked as long as it lives, and `ID.json`, its latest snapshot, replaced at once as a whole.
What the ended ones have counted is in `ended.json`: no worker's end, not even by SIGKILL, makes a counter go down.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distilgpt2_api.observability.merged_metrics import Snapshot, cumulative_part, merge

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - `mkdtemp` makes a folder there that is only ours
ENDED, FOLDING_LOCK = "ended.json", "folding.lock"
NUM_REMEMBERED = 256
"""Workers whose names `ended.json` keeps, so that one that is being folded into it is not counted twice."""


def make_metrics_folder() -> Path:
    """A fresh folder, in memory where that can be had. OSError where no folder can be written."""
    base = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="distilgpt2-metrics-", dir=base))


class MetricsFolder:
    """One worker's view of the folder; it owns its two files in it. OSError where the folder can't be used."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        # Between the file and its lock somebody could take it for a dead worker's.
        with _locked(folder / FOLDING_LOCK):
            self._lock = os.open(folder / f"{self._name}.lock", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """The worker ends: what it has published last stays."""
        os.close(self._lock)

    def publish(self, snapshot: Snapshot) -> None:
        self._write(f"{self._name}.json", snapshot)

    def merged(self) -> Snapshot:
        """All that all workers have published: cumulative metrics of every one, gauges of those that live."""
        self._fold_ended()
        living = {path.stem: _read(path) for path in self._folder.glob("*-*.json")}
        # Read after the living: whoever is folded meanwhile is in both, and known by name.
        ended = self._read_ended()
        own = living.pop(self._name, None)  # the first: its order of families is the page's
        others = [snapshot for name, snapshot in sorted(living.items()) if name not in ended["names"]]
        return merge([snapshot for snapshot in (own, *others, ended["snapshot"]) if snapshot])

    def _fold_ended(self) -> None:
        with _locked(self._folder / FOLDING_LOCK, is_waiting=False) as is_ours:
            if not is_ours:
                return  # Another worker does just that.
            dead = [path for path in self._folder.glob("*-*.lock") if path.stem != self._name and not _is_held(path)]
            if not dead:
                return
            ended = self._read_ended()
            # A name that is known already: its files outlived the process that folded them.
            new = [path for path in dead if path.stem not in ended["names"]]
            snapshots = [snapshot for path in new if (snapshot := _read(path.with_suffix(".json"))) is not None]
            kept = merge([ended["snapshot"], *map(cumulative_part, snapshots)])
            names = [*ended["names"], *(path.stem for path in new)][-NUM_REMEMBERED:]
            self._write(ENDED, {"names": names, "snapshot": kept})
            for path in dead:
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)

    def _read_ended(self) -> dict[str, Any]:
        """Names of ended workers, and the snapshot of them all."""
        return _read(self._folder / ENDED) or {"names": [], "snapshot": {}}

    def _write(self, name: str, content: dict[str, Any]) -> None:
        partial = self._folder / f"{self._name}.partial"
        partial.write_text(json.dumps(content))
        partial.replace(self._folder / name)


def remove_metrics_folder(folder: Path) -> None:
    """Unless somebody still uses it: a master that replaces this one, say."""
    if not any(_is_held(path) for path in folder.glob("*-*.lock")):
        shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> Any:
    """None where there is no such file, any more or yet."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def _is_held(path: Path) -> bool:
    """Whether a living process has the lock."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _locked(path: Path, *, is_waiting: bool = True) -> Iterator[bool]:
    """Holds the lock; yields False where another has it and `is_waiting` is not set."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if is_waiting else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
