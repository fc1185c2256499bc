"""Finds models on disk: the bundled one in the package, pulled ones below the store's home, others in any folder.

Never uses the network: `pull.py` does.
"""

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from distilgpt2_api.core.errors import ModelFormatError, ModelNotFoundError
from distilgpt2_api.core.model_files import has_file, is_folder, list_folder
from distilgpt2_api.core.model_folder import CONFIG_FILE
from distilgpt2_api.model.weights.folder_hints import hint_at

BUNDLED_NAME = "storyteller"
BUNDLED_FOLDER = Path(__file__).parents[2] / "models" / BUNDLED_NAME
DEFAULT_NAME = "distilgpt2"
"""Served if no model is named and it has been pulled; else the bundled one is."""

PULL_MANIFEST = "pulled.json"
"""File beside a pulled model's own: its commit and its files' sizes."""
SEPARATOR = "--"
"""Replaces the slash of a name in a folder's name; the hub does not allow it in names."""

NAME_PATTERN = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9]([\w.-]*\w)?(/[A-Za-z0-9]([\w.-]*\w)?)?", re.ASCII)
"""The hub's names: `name` or `organisation/name`."""


class ModelOrigin(StrEnum):
    BUNDLED = "bundled"
    PULLED = "pulled"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLocation:
    name: str
    """The name in logs and /v1/models: the hub's full name, or the folder's last part."""
    folder: Path
    """Absolute; has a config.json."""
    origin: ModelOrigin


class ModelStore:
    """Finds models by name. `home/models/ORGANISATION--NAME` is a complete pulled model."""

    def __init__(self, home: Path, *, bundled_folder: Path = BUNDLED_FOLDER) -> None:
        self.home = home.absolute()
        self._models_folder = self.home / "models"
        self._bundled_folder = bundled_folder

    def locate(self, name_or_folder: str | None) -> ModelLocation:
        """The model with that name or in that folder; None means the default.

        A path, or an existing model folder, counts as a folder; anything else as a name. Raises ModelNotFoundError, or
        ModelFormatError if this process lacks the permission; both say what to do.
        """
        if name_or_folder is None:
            with suppress(ModelFormatError):  # another user's home has no models for this one
                return self._find_pulled(DEFAULT_NAME) or self._bundled()
            return self._bundled()
        location = self.find(name_or_folder)
        if location is None:
            folder = Path(name_or_folder).absolute()
            if is_folder(folder):
                return _locate_folder(folder)  # which says why it is not a model
            here = ", ".join([BUNDLED_NAME, *self.list_pulled()])
            raise ModelNotFoundError(
                f"no model {name_or_folder!r} (models here: {here}), and no folder {folder}; "
                f"to fetch it from the hub: distilgpt2-api pull {name_or_folder}"
            )
        return location

    def find(self, name_or_folder: str) -> ModelLocation | None:
        """As `locate`, but None if no model has that name."""
        if _is_path(name_or_folder):
            return _locate_folder(Path(name_or_folder).expanduser())
        return self._bundled() if name_or_folder == BUNDLED_NAME else self._find_pulled(name_or_folder)

    def list_pulled(self) -> list[str]:
        """Names of the pulled models, sorted."""
        folder = self._models_folder
        return sorted(name.replace(SEPARATOR, "/") for name in list_folder(folder) if _has_model(folder / name))

    def folder_of(self, name: str) -> Path:
        """The pulled model's folder, existing or not. `name` is the full name; ModelNotFoundError if it is invalid."""
        if NAME_PATTERN.fullmatch(name) is None:
            raise ModelNotFoundError(f"{name!r} is not a model name: write NAME or ORGANISATION/NAME")
        return self._models_folder / name.replace("/", SEPARATOR)

    def commit_of(self, name: str, *, with_files: Iterable[str] = ()) -> str | None:
        """The hub's commit of a pulled model. None if the model is missing or incomplete, or lacks one of these files,
        which an earlier version may have left out.
        """
        folder = self.folder_of(name)
        try:
            record = json.loads((folder / PULL_MANIFEST).read_bytes())
            sizes = record["files"]
            is_whole = all((folder / file).stat().st_size == size for file, size in sizes.items())
            is_whole = is_whole and all(file in sizes for file in with_files)
            return str(record["commit"]) if is_whole else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _find_pulled(self, name: str) -> ModelLocation | None:
        """By full name, or by its last part if that is unique: `distilgpt2` finds `distilbert/distilgpt2`."""
        names = self.list_pulled()
        matches = [name] if name in names else [full for full in names if full.endswith(f"/{name}")]
        if len(matches) > 1:
            raise ModelNotFoundError(f"{name!r} could be {' or '.join(matches)}: give the full name")
        if not matches:
            return None
        return ModelLocation(name=matches[0], folder=self.folder_of(matches[0]), origin=ModelOrigin.PULLED)

    def _bundled(self) -> ModelLocation:
        if not has_file(self._bundled_folder / CONFIG_FILE):
            raise ModelNotFoundError(
                f"the bundled model is missing from {self._bundled_folder}; "
                f"to fetch another: distilgpt2-api pull {DEFAULT_NAME}"
            )
        return ModelLocation(name=BUNDLED_NAME, folder=self._bundled_folder.absolute(), origin=ModelOrigin.BUNDLED)


def _is_path(name_or_folder: str) -> bool:
    """A file is one too: its folder may be the model."""
    path = Path(name_or_folder)
    is_file = has_file(path) and not is_folder(path)
    return is_file or NAME_PATTERN.fullmatch(name_or_folder) is None or has_file(path / CONFIG_FILE)


def _has_model(folder: Path) -> bool:
    """True also if this process lacks the permission to look: `locate` then reports that."""
    try:
        return has_file(folder / CONFIG_FILE)
    except ModelFormatError:
        return True


def _locate_folder(folder: Path) -> ModelLocation:
    if not is_folder(folder):
        raise ModelNotFoundError(f"no folder {folder.absolute()}{_hint_around(folder)}")
    if not has_file(folder / CONFIG_FILE):
        names = [path.name for path in folder.glob("*")]
        raise ModelNotFoundError(f"the folder {folder} is not a model: it has no config.json{hint_at(names)}")
    return ModelLocation(name=folder.resolve().name, folder=folder.absolute(), origin=ModelOrigin.FOLDER)


def _hint_around(folder: Path) -> str:
    """The target of a broken link, and advice if the folder around it is empty or is itself the model."""
    target = folder.resolve()
    link = f", a link to {target}" if folder.is_symlink() else ""
    names = list_folder(target.parent)
    if CONFIG_FILE in names:
        return f"{link}; {target.parent} is a model: name that folder"
    if is_folder(target.parent) and not names:
        return f"{link}; {target.parent} is empty: is the volume or image with the model mounted there?"
    return link
