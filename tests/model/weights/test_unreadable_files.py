"""Model folders and files that another user may not read give one line with path and user."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.e2e.conftest import write_model

from distilgpt2_api.cli import main
from distilgpt2_api.core.errors import ModelError, ModelFormatError
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.hub.store import ModelOrigin, ModelStore
from distilgpt2_api.model.weights.checkpoint import open_checkpoint
from distilgpt2_api.text.chat_templates.files import load_chat_template
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

OTHER_USER = 65534
EXTRAS = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that all users may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def folder(home: Path) -> Path:
    """A model folder with every file that is read."""
    model = home / "my-model"
    model.mkdir()
    write_model(model)
    for name in EXTRAS:
        (model / name).write_text("{}")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    return model


@contextmanager
def as_another_user() -> Iterator[int]:
    """Root may read everything; any other user may not read files without permissions."""
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(OTHER_USER)
        yield os.geteuid()
    finally:
        os.seteuid(user)


def read_everything(folder: Path) -> None:
    location = ModelStore(folder.parent / "home").locate(str(folder))
    config = read_model_config(location.folder)
    Tokenizer.from_folder(location.folder)
    load_chat_template(location.folder, None)
    open_checkpoint(location.folder, config)


@pytest.mark.reported("a container's user without rights on a mounted model: tracebacks of PermissionError")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", *EXTRAS])
def test_a_file_that_may_not_be_read_is_one_line(folder: Path, name: str) -> None:
    (folder / name).chmod(0)
    with as_another_user() as user, pytest.raises(ModelError) as caught:
        read_everything(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder / name}: can't be read: Permission denied for user {user}")
    assert "\n" not in message


@pytest.mark.reported("a folder of mode 0700 mounted into the image")
@pytest.mark.parametrize("is_parent", [False, True])
def test_a_folder_that_may_not_be_entered_is_one_line(folder: Path, is_parent: bool) -> None:
    model = folder
    if is_parent:
        model = folder / "inner"
        model.mkdir()
        shutil.copy(folder / "config.json", model)
    folder.chmod(0)
    with (
        as_another_user() as user,
        pytest.raises(ModelFormatError, match=f"Permission denied for user {user}") as caught,
    ):
        read_everything(model)
    assert str(model) in str(caught.value)


def test_another_users_models_are_reported_only_if_one_of_them_is_named(folder: Path, home: Path) -> None:
    pulled = home / "home" / "models" / "a--b"
    shutil.copytree(folder, pulled)
    store = ModelStore(home / "home", bundled_folder=folder)
    pulled.chmod(0)
    with as_another_user():
        assert store.list_pulled() == ["a/b"]
        with pytest.raises(ModelFormatError, match="Permission denied"):
            read_model_config(store.locate("a/b").folder)
    (home / "home" / "models").chmod(0)
    with as_another_user():
        with pytest.raises(ModelFormatError, match="Permission denied"):
            store.locate("a/b")
        assert store.locate(None).origin is ModelOrigin.BUNDLED


@pytest.mark.parametrize("command", [["generate", "Once"], ["evaluate", __file__]])
def test_commands_report_it_in_one_line_and_exit_with_1(folder: Path, command: list[str]) -> None:
    import_module(f"distilgpt2_api.cli.commands.{command[0]}")  # now: the other user may not read Python's library
    folder.chmod(0)
    with as_another_user() as user:
        result = CliRunner().invoke(main, [*command, "--model", str(folder)])
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert f"Permission denied for user {user}" in result.output
    assert result.output.count("\n") == 1
