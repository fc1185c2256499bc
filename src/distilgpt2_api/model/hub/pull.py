"""Pulls models from the Hugging Face hub, or from one with the same protocol (`HF_ENDPOINT`).

The hub first lists names, sizes and hashes of a commit's files. Downloads are checked against them, and a model appears
in the store whole or not at all. Files of an interrupted pull are kept, and the next pull resumes. Importing this needs
the optional extra `hub`.
"""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# The error of its HTTP client (httpx in one release, httpx2 in the next), and its only way to resume a file.
from huggingface_hub.errors import HTTPError as NetworkError  # type: ignore[attr-defined]  # imported there, not declared
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not declared

from distilgpt2_api.core.errors import ModelError, ModelFormatError, ModelNotFoundError
from distilgpt2_api.core.model_folder import CONFIG_FILE
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.hub.repository_files import (
    HubFile,
    choose_companions,
    choose_shards,
    choose_weights,
)
from distilgpt2_api.model.hub.store import BUNDLED_NAME, PULL_MANIFEST, ModelLocation, ModelStore
from distilgpt2_api.model.weights.weight_files import INDEX_FILE

OFFLINE = f"use the demo model, which works offline: --model {BUNDLED_NAME} (make run MODEL={BUNDLED_NAME})"


def pull_model(
    store: ModelStore, name: str, *, revision: str = "main", endpoint: str | None = None, report: Callable[[str], None]
) -> ModelLocation:
    """Fetch the files that serving `name` needs, at a branch, tag or commit, into the store.

    `endpoint`: None means `HF_ENDPOINT` or the public hub. `report` gets a line for each stage; each file shows a
    progress bar on stderr. Raises ModelError, in one line.
    """
    store.folder_of(name)  # refuses an invalid name before the hub is asked
    endpoint = endpoint or constants.ENDPOINT
    with _errors_in_one_line(name, revision, endpoint):
        info = HfApi(endpoint=endpoint).model_info(name, revision=revision, files_metadata=True)
        commit = info.sha
        if commit is None:
            raise ModelFormatError(f"{endpoint} does not say which commit {revision!r} of {name} is")
        files = _list_files(info)
        companions = choose_companions(info.id, files)
        if store.commit_of(info.id, with_files=[file.name for file in companions]) == commit:
            report(f"{info.id} is here already, at commit {commit}")
            return store.locate(info.id)
        report(f"{info.id}, commit {commit}, from {endpoint}")
        weights = choose_weights(info.id, files)
        downloader = Downloader(info.id, commit, endpoint, earlier=store.folder_of(info.id))
        with gather_model(store, info.id, commit) as folder:
            for file in [*companions, weights]:
                downloader.fetch(file, folder)
                if file.name == CONFIG_FILE:
                    read_model_config(folder)  # refuses another architecture before its weights are downloaded
            if weights.name == INDEX_FILE:
                for file in choose_shards(info.id, folder / INDEX_FILE, files):
                    downloader.fetch(file, folder)
    return store.locate(info.id)


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


class Downloader:
    """Fetches files of one commit."""

    def __init__(self, name: str, commit: str, endpoint: str, *, earlier: Path) -> None:
        """`earlier`: the folder of an earlier pull, from which unchanged files are copied."""
        self._name, self._commit, self._endpoint, self._earlier = name, commit, endpoint, earlier
        # Ranges must count bytes of the file itself.
        self._headers = {**build_hf_headers(), "Accept-Encoding": "identity"}

    def fetch(self, file: HubFile, folder: Path) -> None:
        """Write `folder / file.name`, resuming an earlier try. Raises ModelFormatError if its hash differs."""
        path = folder / file.name
        self._reuse(file, path)
        url = hf_hub_url(self._name, file.name, revision=self._commit, endpoint=self._endpoint)
        with path.open("ab") as target:
            num_bytes_here = target.tell()
            if num_bytes_here > file.size:
                num_bytes_here = target.truncate(0)
            if num_bytes_here < file.size:
                http_get(url, target, resume_size=num_bytes_here, headers=self._headers, displayed_filename=file.name)
        try:
            file.check(path)
        except ModelFormatError:
            path.unlink()  # resuming would never fix it
            raise

    def _reuse(self, file: HubFile, path: Path) -> None:
        """Copy the file from the earlier pull, if it is the same there and none of it has been fetched."""
        earlier = self._earlier / file.name
        with suppress(OSError, ModelFormatError):  # it is missing or different: fetch it
            if not path.exists():
                file.check(earlier)
                shutil.copyfile(earlier, path)


def _list_files(info: ModelInfo) -> dict[str, HubFile]:
    """Files of the top folder by name, as far as the hub tells their size and hash."""
    files = {}
    for sibling in info.siblings or []:
        is_checkable = sibling.size is not None and (sibling.lfs or sibling.blob_id)
        if is_checkable and "/" not in sibling.rfilename and sibling.rfilename not in {"", ".", ".."}:
            files[sibling.rfilename] = HubFile(
                name=sibling.rfilename,
                size=sibling.size or 0,
                sha256=sibling.lfs.sha256 if sibling.lfs else None,
                git_sha1=sibling.blob_id,
            )
    return files


@contextmanager
def _errors_in_one_line(name: str, revision: str, endpoint: str) -> Iterator[None]:
    try:
        yield
    except RevisionNotFoundError:
        raise ModelNotFoundError(f"{endpoint} has no revision {revision!r} of {name}") from None
    except GatedRepoError:
        raise ModelError(f"{name} is gated: ask for access on {endpoint}/{name}, then set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise ModelNotFoundError(f"{endpoint} has no model {name}, or it is private: then set HF_TOKEN") from None
    except HFValidationError as error:
        raise ModelNotFoundError(f"{name!r} is not a valid name on the hub: {str(error).splitlines()[0]}") from None
    except OfflineModeIsEnabled:
        raise ModelError(f"can't fetch {name}: HF_HUB_OFFLINE is set; set HF_HUB_OFFLINE=0, or {OFFLINE}") from None
    except HfHubHTTPError as error:
        raise ModelError(f"{endpoint} answers {error.response.status_code} for {error.response.url}") from None
    except NetworkError as error:
        raise ModelError(
            f"can't fetch {name} from {endpoint}: {error}; check the network and pull again (it resumes), or {OFFLINE}"
        ) from None
    except OSError as error:
        raise ModelError(f"{name} can't be stored: {str(error).splitlines()[0]}") from None
