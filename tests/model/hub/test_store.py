from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from distilgpt2_api.core.errors import ModelNotFoundError
from distilgpt2_api.model.hub.store import ModelOrigin, ModelStore


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store never touches the network."""

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        pytest.fail("the store opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.fixture
def put_model(tmp_path: Path) -> Callable[[str], Path]:
    def put(path: str) -> Path:
        folder = tmp_path / path
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        return folder

    return put


@pytest.fixture
def store(tmp_path: Path, put_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.chdir(tmp_path)
    return ModelStore(tmp_path / "home", bundled_folder=put_model("package/storyteller"))


def test_without_a_name_it_is_the_bundled_model(store: ModelStore, tmp_path: Path) -> None:
    location = store.locate(None)
    assert (location.name, location.origin) == ("storyteller", ModelOrigin.BUNDLED)
    assert location.folder == tmp_path / "package/storyteller"


def test_without_a_name_it_is_distilgpt2_once_that_is_pulled(
    store: ModelStore, put_model: Callable[[str], Path]
) -> None:
    folder = put_model("home/models/distilbert--distilgpt2")
    location = store.locate(None)
    assert (location.name, location.origin) == ("distilbert/distilgpt2", ModelOrigin.PULLED)
    assert location.folder == folder


def test_the_bundled_model_has_a_name_too(store: ModelStore, put_model: Callable[[str], Path]) -> None:
    put_model("home/models/distilbert--distilgpt2")
    assert store.locate("storyteller").origin is ModelOrigin.BUNDLED


@pytest.mark.parametrize("name", ["openai-community/gpt2", "gpt2"])
def test_a_pulled_model_is_found_by_its_full_name_and_by_its_last_part(
    name: str, store: ModelStore, put_model: Callable[[str], Path]
) -> None:
    put_model("home/models/openai-community--gpt2")
    put_model("home/models/openai-community--gpt2-large")
    assert store.locate(name).name == "openai-community/gpt2"
    assert store.list_pulled() == ["openai-community/gpt2", "openai-community/gpt2-large"]


def test_an_ambiguous_last_part_asks_for_the_full_name(store: ModelStore, put_model: Callable[[str], Path]) -> None:
    put_model("home/models/a--gpt2")
    put_model("home/models/b--gpt2")
    with pytest.raises(ModelNotFoundError, match="could be a/gpt2 or b/gpt2"):
        store.locate("gpt2")


@pytest.mark.parametrize("spelled", ["./mine", "mine", "deep/mine", "deep/er/mine", "{absolute}", "../{parent}/mine"])
def test_a_model_folder_is_served_in_place(
    spelled: str, store: ModelStore, put_model: Callable[[str], Path], tmp_path: Path
) -> None:
    for path in ("mine", "deep/mine", "deep/er/mine"):
        put_model(path)
    spelled = spelled.format(absolute=tmp_path / "mine", parent=tmp_path.name)
    location = store.locate(spelled)
    assert (location.name, location.origin) == ("mine", ModelOrigin.FOLDER)
    assert location.folder.samefile(tmp_path / spelled)
    assert location.folder.is_absolute()


def test_a_tilde_means_the_users_home(
    store: ModelStore, put_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = put_model("mine")
    assert store.locate("~/mine").folder == folder


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            "gpt2",
            "no model 'gpt2' (models here: storyteller, a/b), and no folder HERE/gpt2; to fetch it from the hub: ",
        ),
        ("distilbert/distilgpt2", "to fetch it from the hub: distilgpt2-api pull distilbert/distilgpt2"),
        ("./nowhere", "no folder HERE/nowhere"),
        ("../../etc", "no folder HERE/../../etc"),
        ("models/with/depth", "no folder HERE/models/with/depth"),
        ("empty", "the folder HERE/empty is not a model: it has no config.json"),
        ("./empty", "the folder empty is not a model: it has no config.json"),
        (
            "./training",
            "no config.json: it has the checkpoints of a training run; give one of them, such as checkpoint-20",
        ),
        ("./adapter", "no config.json: it is a PEFT adapter; merge it"),
        ("./models--gpt2", "no config.json: it is a repository of the hub's cache; give the folder below snapshots/"),
    ],
)
def test_a_missing_model_is_one_line_that_says_what_to_do(
    wanted: str, message: str, store: ModelStore, put_model: Callable[[str], Path], tmp_path: Path
) -> None:
    put_model("home/models/a--b")
    for name in ("empty", "training/checkpoint-3", "training/checkpoint-20", "adapter", "models--gpt2/snapshots"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "adapter" / "adapter_config.json").touch()
    with pytest.raises(ModelNotFoundError) as caught:
        store.locate(wanted)
    assert message.replace("HERE", str(tmp_path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_not_mounted_is_one_line_that_says_where(store: ModelStore, tmp_path: Path) -> None:
    """Images have a link to the model to serve, in a folder where a container mounts the folder of a model image."""
    link, models = tmp_path / "model", tmp_path / "models"
    link.symlink_to("models/model")
    models.mkdir()
    with pytest.raises(ModelNotFoundError) as empty:
        store.locate(str(link))
    assert str(empty.value) == (
        f"no folder {link}, a link to {models}/model; {models} is empty: "
        "is the volume or image with the model mounted there?"
    )
    (models / "config.json").touch()
    with pytest.raises(ModelNotFoundError) as flat:
        store.locate(str(link))
    assert str(flat.value) == f"no folder {link}, a link to {models}/model; {models} is a model: name that folder"


def test_a_file_in_a_models_folder_is_told_from_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell completes a folder's name to that of its file."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError) as refused:
        ModelStore(tmp_path / "home").locate("mine/model.safetensors")
    assert str(refused.value) == f"no folder {folder}/model.safetensors; {folder} is a model: name that folder"


def test_a_package_without_its_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"bundled model is missing .* distilgpt2-api pull distilgpt2"):
        ModelStore(tmp_path, bundled_folder=tmp_path / "nowhere").locate(None)


@pytest.mark.parametrize("name", ["../../etc", "a/b/c", ".hidden", "a/..", "", "a b", "a\nb", "a/b\n"])
def test_no_name_leads_out_of_the_store(name: str, store: ModelStore) -> None:
    with pytest.raises(ModelNotFoundError, match="not a model name"):
        store.folder_of(name)
