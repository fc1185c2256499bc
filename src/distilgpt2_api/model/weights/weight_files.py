"""Finds the files with a model folder's weights: `model.safetensors`, or the shards that an index names."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from distilgpt2_api.core.model_files import (
    has_file,
    list_folder,
    parse_json_object,
    read_model_file,
    resolve_inside,
    safe_name,
    safe_repr,
)
from distilgpt2_api.model.weights.folder_hints import hint_at, pickled_weights

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLED_FILE = "pytorch_model.bin"
PICKLED_INDEX_FILE = "pytorch_model.bin.index.json"
MAX_INDEX_BYTES = 8_000_000
MAX_SHARDS = 100
"""All shards are open at once while the weights are read."""
MAX_NAME_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """A file of tensors, and the tensors that an index lists for it (none without an index)."""

    path: Path
    tensor_names: AbstractSet[str] = frozenset()


def find_weight_files(folder: Path) -> list[WeightFile]:
    """One file, or the shards sorted by name; a name has no folder.

    Raises ModelNotFoundError (no weights), UnsupportedModelError (only pickle files) or ModelFormatError (an invalid
    index, or one that points outside the folder).
    """
    if files := _find_files(folder, SINGLE_FILE, INDEX_FILE):
        return files
    names = [path.name for path in folder.glob("*")]
    if pickles := pickled_weights(names):
        raise UnsupportedModelError(
            f"{folder / safe_name(pickles[0])}: pickle files are not served; convert the model: "
            f"distilgpt2-api convert {folder} NEW_FOLDER"
        )
    raise ModelNotFoundError(f"{folder}: no {SINGLE_FILE} and no {INDEX_FILE}{hint_at(names)}")


def find_pickled_files(folder: Path) -> list[WeightFile]:
    """PyTorch's file of weights, or the shards that its index names, or the folder's only other pickle; empty if it has
    none. Raises ModelFormatError, also if there are several pickles.
    """
    if files := _find_files(folder, PICKLED_FILE, PICKLED_INDEX_FILE):
        return files
    names = pickled_weights(list_folder(folder))
    if len(names) > 1:
        raise ModelFormatError(f"{folder}: has several pickles ({', '.join(map(safe_name, names[:5]))}): name one")
    return [WeightFile(path=folder / name) for name in names]


def _find_files(folder: Path, single_file: str, index_file: str) -> list[WeightFile]:
    if has_file(folder / single_file):
        return [WeightFile(path=folder / single_file)]
    if has_file(folder / index_file):
        index = read_index(folder / index_file, suffix=Path(single_file).suffix)
        return [WeightFile(path=folder / name, tensor_names=names) for name, names in sorted(index.items())]
    return []


def find_compiled_file(folder: Path, precision: Precision) -> Path | None:
    """The file of the weights compiled for `precision`; None if the checkpoint is to be read.

    Raises ModelNotFoundError if the folder has weights for another precision only, and no checkpoint;
    ModelFormatError if the file is a link out of the folder.
    """
    path = folder / compiled_name(precision)
    if has_file(path):
        resolve_inside(path)
        return path
    others = [other for other in Precision if has_file(folder / compiled_name(other))]
    if others and not has_file(folder / SINGLE_FILE) and not has_file(folder / INDEX_FILE):
        raise ModelNotFoundError(
            f"{folder}: compiled for precision {' and '.join(others)}; {precision} needs the checkpoint"
        )
    return None


def compiled_name(precision: Precision) -> str:
    return f"compiled.{precision}.safetensors"


def read_index(path: Path, *, suffix: str = ".safetensors") -> dict[str, set[str]]:
    """File name → names of the tensors in it. Raises ModelFormatError."""
    weight_map = parse_json_object(path, read_model_file(path, MAX_INDEX_BYTES)).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFormatError(f"{path}: no weight_map")
    shards: dict[str, set[str]] = {}
    for tensor_name, file_name in weight_map.items():
        if not isinstance(file_name, str) or not _is_bare_name(file_name, suffix):
            raise ModelFormatError(
                f"{path}: {safe_name(tensor_name)} is in {safe_repr(file_name)}, which is not a *{suffix} file in"
                " this folder"
            )
        shards.setdefault(file_name, set()).add(tensor_name)
        if len(shards) > MAX_SHARDS:
            raise ModelFormatError(f"{path}: more than {MAX_SHARDS} shards are not supported")
    return shards


def _is_bare_name(name: str, suffix: str) -> bool:
    """A printable name without a folder, by POSIX and by Windows rules."""
    is_name = PurePosixPath(name).name == PureWindowsPath(name).name == name
    return is_name and name.endswith(suffix) and name.isprintable() and len(name) <= MAX_NAME_CHARACTERS
