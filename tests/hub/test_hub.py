"""Pulling a model: which files are fetched, checked and kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.core.errors import ModelError, ModelFormatError, ModelNotFoundError, UnsupportedModelError
from distilgpt2_api.core.model_folder import DOCUMENT_FILES, OPTIONAL_FILES, TOKENIZER_FORMS
from distilgpt2_api.model.hub.pull import gather_model, pull_model
from distilgpt2_api.model.hub.store import ModelStore

NAME = "distilbert/distilgpt2"


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "home")


def pull(store: ModelStore, hub: Any, name: str = "distilgpt2", revision: str = "main") -> Path:
    return pull_model(store, name, revision=revision, endpoint=hub.url, report=lambda line: None).folder


def files_asked(hub: Any) -> list[str]:
    return [path.rpartition("/")[2] for path, _ in hub.requests if "/resolve/" in path]


def test_only_what_serving_needs_is_fetched_and_the_alias_is_resolved(store: ModelStore, hub: Any) -> None:
    folder = pull(store, hub)
    assert store.locate(None).folder == folder == store.locate(NAME).folder
    assert files_asked(hub) == ["config.json", "tokenizer.json", "README.md", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == hub.weights
    assert store.commit_of(NAME) == hub.commit


def test_gpt2s_own_tokenizer_files_need_no_tokenizer_json(store: ModelStore, hub: Any) -> None:
    del hub.main_files["tokenizer.json"]
    pull(store, hub)
    assert files_asked(hub) == ["config.json", "vocab.json", "merges.txt", "README.md", "model.safetensors"]


@pytest.mark.reported("a fine-tune's special tokens, there under serve and lost after pull and in the image")
@pytest.mark.parametrize("form", TOKENIZER_FORMS)
def test_all_files_that_a_start_reads_are_fetched(form: tuple[str, ...], store: ModelStore, hub: Any) -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        del hub.main_files[name]
    hub.main_files.update(dict.fromkeys((*form, *OPTIONAL_FILES, *DOCUMENT_FILES), b"{}"))
    folder = pull(store, hub)
    fetched = {path.name for path in folder.iterdir()}
    assert fetched == {"config.json", "model.safetensors", "pulled.json", *form, *OPTIONAL_FILES, *DOCUMENT_FILES}


def test_a_file_that_an_earlier_version_left_out_is_fetched(store: ModelStore, hub: Any) -> None:
    record_path = pull(store, hub) / "pulled.json"
    record = json.loads(record_path.read_text())
    del record["files"]["README.md"]
    record_path.write_text(json.dumps(record))
    record_path.with_name("README.md").unlink()
    hub.requests.clear()
    assert "README.md" in json.loads((pull(store, hub) / "pulled.json").read_text())["files"]
    assert files_asked(hub) == ["README.md"]
    assert store.commit_of(NAME) == hub.commit


def test_shards_are_those_that_the_index_names(store: ModelStore, hub: Any) -> None:
    files = hub.main_files
    files["part-1.safetensors"] = files.pop("model.safetensors")
    files["part-2.safetensors"] = b"2"
    files["other.safetensors"] = b"3"
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors", "c": "part-1.safetensors"}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    folder = pull(store, hub)
    assert {path.name for path in folder.glob("*.safetensors")} == {"part-1.safetensors", "part-2.safetensors"}


def test_a_complete_model_is_not_fetched_again(store: ModelStore, hub: Any) -> None:
    pull(store, hub)
    hub.requests.clear()
    pull(store, hub)
    assert files_asked(hub) == []


def test_a_model_that_lost_a_file_is_fetched_again(store: ModelStore, hub: Any) -> None:
    (pull(store, hub) / "model.safetensors").unlink()
    assert (pull(store, hub) / "model.safetensors").read_bytes() == hub.weights


@pytest.mark.parametrize("revision", ["v1", "b" * 40])
def test_another_revision_replaces_the_model(revision: str, store: ModelStore, hub: Any) -> None:
    pull(store, hub)
    folder = pull(store, hub, revision=revision)
    assert (folder / "model.safetensors").read_bytes() == hub.old_weights
    assert store.commit_of(NAME) == "b" * 40
    assert store.list_pulled() == [NAME]


def test_a_broken_download_resumes(store: ModelStore, hub: Any) -> None:
    hub.cut_once_after = 1000
    assert (pull(store, hub) / "model.safetensors").read_bytes() == hub.weights
    assert (f"/cdn/{hub.commit}/model.safetensors", "bytes=1000-") in hub.requests


def test_the_next_pull_resumes_an_interrupted_one(store: ModelStore, hub: Any) -> None:
    hub.cut_once_after, hub.is_down_after_cut = 1000, True
    with pytest.raises(ModelError, match="503"):
        pull(store, hub)
    assert store.list_pulled() == []
    hub.is_down_after_cut = False
    hub.requests.clear()
    assert (pull(store, hub) / "model.safetensors").read_bytes() == hub.weights
    assert hub.requests[-1][1] == "bytes=1000-"
    assert files_asked(hub) == ["model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_with_another_hash_is_refused_and_not_kept(name: str, store: ModelStore, hub: Any) -> None:
    hub.tampered.add(name)
    with pytest.raises(ModelFormatError, match=f"{name} differs from the file that the hub announced"):
        pull(store, hub)
    assert store.list_pulled() == []
    hub.tampered.clear()
    pull(store, hub)


def test_a_file_that_the_hub_announced_but_lacks_is_an_error(store: ModelStore, hub: Any) -> None:
    hub.missing.add("model.safetensors")
    with pytest.raises(ModelError, match=r"404 for .*model.safetensors"):
        pull(store, hub)


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        (["config.json"], "has no config.json"),
        (["tokenizer.json", "merges.txt"], "has no tokenizer"),
        (["model.safetensors", "pytorch_model.bin"], "has no weights"),
    ],
)
def test_a_repository_that_is_not_a_model_is_refused(
    removed: list[str], message: str, store: ModelStore, hub: Any
) -> None:
    for name in removed:
        del hub.main_files[name]
    with pytest.raises(ModelFormatError, match=message):
        pull(store, hub)


def test_pickled_weights_are_refused_with_the_way_out(store: ModelStore, hub: Any) -> None:
    del hub.main_files["model.safetensors"]
    with pytest.raises(UnsupportedModelError, match=r"pytorch_model.bin.*convert"):
        pull(store, hub)
    assert files_asked(hub) == []


def test_another_architecture_is_refused_before_its_weights_are_fetched(store: ModelStore, hub: Any) -> None:
    hub.main_files["config.json"] = json.dumps(
        json.loads(hub.main_files["config.json"]) | {"model_type": "llama"}
    ).encode()
    with pytest.raises(ModelError, match="llama"):
        pull(store, hub)
    assert files_asked(hub) == ["config.json"]


@pytest.mark.parametrize(
    ("shard", "reason"),
    [
        ("../../outside.safetensors", "which is not a *.safetensors file in this folder"),
        ("nowhere.safetensors", "which the repository lacks"),
    ],
)
def test_an_index_that_names_a_missing_file_is_refused(shard: str, reason: str, store: ModelStore, hub: Any) -> None:
    files = hub.main_files
    del files["model.safetensors"]
    files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": shard}}).encode()
    with pytest.raises(ModelFormatError, match=re.escape(reason)):
        pull(store, hub)


def test_unknown_models_and_revisions_are_reported(store: ModelStore, hub: Any) -> None:
    with pytest.raises(ModelNotFoundError, match="has no model none/nothing"):
        pull(store, hub, name="none/nothing")
    with pytest.raises(ModelNotFoundError, match=f"has no revision 'v2' of {NAME}"):
        pull(store, hub, name=NAME, revision="v2")


def test_no_hub_at_all_is_one_line(store: ModelStore) -> None:
    with pytest.raises(ModelError, match=r"can't fetch distilbert/distilgpt2 from http://127.0.0.1:9: ") as caught:
        pull_model(store, NAME, endpoint="http://127.0.0.1:9", report=lambda line: None)
    assert "\n" not in str(caught.value)


def test_two_processes_do_not_fetch_the_same_model_at_once(store: ModelStore, hub: Any) -> None:
    with gather_model(store, NAME, hub.commit), pytest.raises(ModelError, match="another process is fetching"):
        pull(store, hub)


def test_a_gated_model_says_how_to_get_access(store: ModelStore, hub: Any) -> None:
    hub.is_gated = True
    with pytest.raises(ModelError, match=rf"{NAME} is gated: ask for access on .*/{NAME}, then set HF_TOKEN"):
        pull(store, hub, name=NAME)
