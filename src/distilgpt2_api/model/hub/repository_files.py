"""Chooses the files of a hub repository that make a model, and checks downloads against size and hash."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distilgpt2_api.core.errors import ModelFormatError, UnsupportedModelError
from distilgpt2_api.core.model_folder import CONFIG_FILE, DOCUMENT_FILES, OPTIONAL_FILES, TOKENIZER_FORMS
from distilgpt2_api.model.weights.folder_hints import hint_at, pickled_weights
from distilgpt2_api.model.weights.weight_files import INDEX_FILE, SINGLE_FILE, read_index


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    name: str
    size: int
    """Bytes."""
    sha256: str | None
    """For files in large-file storage."""
    git_sha1: str | None
    """For all other files: git's hash of the content as a blob."""

    def check(self, path: Path) -> None:
        """Raises ModelFormatError unless `path` has this file's size and hash."""
        size = path.stat().st_size
        if size != self.size:
            raise ModelFormatError(f"{self.name} has {size} bytes, but the hub announced {self.size}")
        # git hashes a blob by SHA-1 of its size and content; for large files the hub gives SHA-256 of the content.
        begun = hashlib.sha256() if self.sha256 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: begun).hexdigest()
        if found != (self.sha256 or self.git_sha1):
            raise ModelFormatError(f"{self.name} differs from the file that the hub announced: its hash is {found}")


def choose_companions(name: str, files: Mapping[str, HubFile]) -> list[HubFile]:
    """The files that a start reads beside the weights: `config.json` first, one form of the tokenizer, optional files.

    Raises ModelFormatError if there is no config or no tokenizer.
    """
    if CONFIG_FILE not in files:
        raise ModelFormatError(f"{name} has no {CONFIG_FILE}")
    form = next((form for form in TOKENIZER_FORMS if all(file in files for file in form)), None)
    if form is None:
        forms = ", ".join(" with ".join(form) for form in TOKENIZER_FORMS)
        raise ModelFormatError(f"{name} has no tokenizer: none of {forms}")
    optional = (file for file in (*OPTIONAL_FILES, *DOCUMENT_FILES) if file in files)
    return [files[file] for file in (CONFIG_FILE, *form, *optional)]


def choose_weights(name: str, files: Mapping[str, HubFile]) -> HubFile:
    """The safetensors file, or the index of several. Raises ModelFormatError or UnsupportedModelError."""
    for wanted in (SINGLE_FILE, INDEX_FILE):
        if wanted in files:
            return files[wanted]
    if pickles := pickled_weights([*files]):
        raise UnsupportedModelError(
            f"{name} has only pickled weights ({pickles[0]}); download the repository's files to a folder and convert "
            f"them (distilgpt2-api convert FOLDER NEW_FOLDER), or pull a revision that has {SINGLE_FILE}"
        )
    raise ModelFormatError(f"{name} has no weights: no {SINGLE_FILE}{hint_at([*files])}")


def choose_shards(name: str, index: Path, files: Mapping[str, HubFile]) -> list[HubFile]:
    """The files that an index names. Raises ModelFormatError if the repository lacks one."""
    names = sorted(read_index(index))
    missing = [shard for shard in names if shard not in files]
    if missing:
        raise ModelFormatError(f"{name}: {index.name} names {missing[0]!r}, which the repository lacks")
    return [files[shard] for shard in names]
