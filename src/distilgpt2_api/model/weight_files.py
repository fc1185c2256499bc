"""Which files of a model folder hold its weights: `model.safetensors`, or the shards that an index names."""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_INDEX_BYTES = 100_000_000
MAX_SHARDS = 1_000
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """A safetensors file, and the tensors that an index says it holds (none without an index)."""

    path: Path
    tensor_names: AbstractSet[str] = frozenset()


def find_weight_files(folder: Path) -> list[WeightFile]:
    """One file, or the shards in the order of their names; each exists and lies in the folder.

    Raises ModelNotFoundError (no weights), UnsupportedModelError (pickle files alone: reading one executes what it
    says) or ModelFormatError (an index that is not one, or that points outside).
    """
    if (folder / SINGLE_FILE).exists():
        return [WeightFile(path=_inside(folder, SINGLE_FILE))]
    if (folder / INDEX_FILE).exists():
        return _read_index(folder)
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise UnsupportedModelError(
            f"{folder / pickles[0]}: pickle files are not read, for a pickle runs any code that it holds; convert the "
            "model once with transformers: model.save_pretrained(folder, safe_serialization=True)"
        )
    raise ModelNotFoundError(f"{folder}: no {SINGLE_FILE} and no {INDEX_FILE}")


def find_compiled_file(folder: Path, precision: Precision) -> Path | None:
    """The folder's weights compiled for `precision` (`compiled_model`); None where the checkpoint is to be read.

    Raises ModelNotFoundError where the folder has weights for another precision only, and no checkpoint.
    """
    path = folder / compiled_name(precision)
    if path.is_file():
        return path
    others = [other for other in Precision if (folder / compiled_name(other)).is_file()]
    if others and not (folder / SINGLE_FILE).exists() and not (folder / INDEX_FILE).exists():
        raise ModelNotFoundError(
            f"{folder}: compiled for precision {' and '.join(others)}; {precision} needs the checkpoint itself"
        )
    return None


def compiled_name(precision: Precision) -> str:
    return f"compiled.{precision}.safetensors"


def _read_index(folder: Path) -> list[WeightFile]:
    path = _inside(folder, INDEX_FILE)
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise ModelFormatError(f"{path}: larger than {MAX_INDEX_BYTES} bytes")
        index = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelFormatError(f"{path}: can't be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path}: not valid JSON: {error}") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFormatError(f"{path}: no weight_map")
    shards: dict[str, set[str]] = {}
    for tensor_name, file_name in weight_map.items():
        if not isinstance(file_name, str) or not _is_bare_name(file_name):
            raise ModelFormatError(
                f"{path}: {tensor_name} is in {file_name!r}: not the name of a safetensors file here"
            )
        shards.setdefault(file_name, set()).add(tensor_name)
    if len(shards) > MAX_SHARDS:
        raise ModelFormatError(f"{path}: {len(shards)} shards; at most {MAX_SHARDS} are read")
    return [WeightFile(path=_inside(folder, name), tensor_names=names) for name, names in sorted(shards.items())]


def _is_bare_name(name: str) -> bool:
    """No folder in it, neither as POSIX nor as Windows writes one."""
    return name.endswith(".safetensors") and PurePosixPath(name).name == PureWindowsPath(name).name == name


def _inside(folder: Path, name: str) -> Path:
    """The file's path. A link may not lead out of the folder, except as the hub's cache has it:
    `snapshots/<revision>/` holds links into `blobs/` beside it.
    """
    path = folder / name
    home = folder.resolve()
    allowed = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    try:
        target = path.resolve(strict=True)
    except OSError as error:
        raise ModelFormatError(f"{path}: can't be read: {error}") from error
    if not target.is_file() or not any(target.is_relative_to(root) for root in allowed):
        raise ModelFormatError(f"{path}: not a file, or a link that leads out of the model folder")
    return path
