"""Files of a model folder are regular, inside the folder and within size limits, or refused with one line."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.model_files import (
    MAX_JSON_VALUES,
    open_model_file,
    parse_json_object,
    read_model_file,
    read_operator_file,
    safe_name,
    safe_repr,
)

NAME = "config.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def link_outside(path: Path) -> None:
    (path.parent.parent / "secret").write_bytes(b"{}")
    path.symlink_to("../secret")


def link_through_a_folder(path: Path) -> None:
    (path.parent.parent / "other").mkdir()
    (path.parent.parent / "other" / NAME).write_bytes(b"{}")
    (path.parent / "inner").symlink_to("../other")
    path.symlink_to(f"inner/{NAME}")


def listen(path: Path) -> None:
    home = Path.cwd()
    os.chdir(path.parent)  # a socket's path has 108 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(NAME)
    finally:
        os.chdir(home)


def link_to_blobs_that_are_no_hubs(path: Path) -> None:
    (path.parent.parent / "blobs").mkdir()
    (path.parent.parent / "blobs" / "x").write_bytes(b"{}")
    path.symlink_to("../blobs/x")


MISPLACED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing": (lambda path: None, "No such file"),
    "a pipe": (os.mkfifo, "not a file"),
    "a socket": (listen, "not a file"),
    "a folder": (Path.mkdir, "not a file"),
    "an endless device": (lambda path: path.symlink_to("/dev/zero"), "leads out of the model folder"),
    "a link outside": (link_outside, "leads out of the model folder"),
    "a link through a linked folder": (link_through_a_folder, "leads out of the model folder"),
    "blobs without a snapshot": (link_to_blobs_that_are_no_hubs, "leads out of the model folder"),
    "a link to nowhere": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "a link to itself": (lambda path: path.symlink_to(NAME), "can't be read"),
}


@pytest.mark.parametrize(("place", "message"), MISPLACED.values(), ids=MISPLACED)
def test_a_file_that_is_not_regular_or_outside_is_refused_without_blocking(
    folder: Path, place: Callable[[Path], Any], message: str
) -> None:
    path = folder / NAME
    place(path)

    for read in (open_model_file, lambda path: read_model_file(path, 100)):
        with pytest.raises(ModelFormatError, match=message) as raised:
            read(path)
        assert str(raised.value).startswith(f"{path}: ")
        assert len(str(raised.value).splitlines()) == 1


def test_a_name_that_no_file_can_have(folder: Path) -> None:
    with pytest.raises(ModelFormatError, match="can't be read"):
        open_model_file(folder / "a\0b")


def test_links_within_the_folder_are_followed(folder: Path) -> None:
    """Kubernetes mounts a ConfigMap this way: the file is a link through `..data`, a link to a folder in the mount."""
    (folder / "..2026").mkdir()
    (folder / "..2026" / NAME).write_bytes(b"here")
    (folder / "..data").symlink_to("..2026")
    (folder / NAME).symlink_to(f"..data/{NAME}")

    assert read_model_file(folder / NAME, 4) == b"here"


def test_links_into_the_hubs_blobs_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "hub" / "blobs").mkdir()
    (tmp_path / "hub" / "blobs" / "123").write_bytes(b"here")
    (snapshot / NAME).symlink_to("../../blobs/123")

    assert read_model_file(snapshot / NAME, 4) == b"here"


def test_the_folder_itself_may_be_a_link(folder: Path) -> None:
    (folder / NAME).write_bytes(b"here")
    link = folder.parent / "link"
    link.symlink_to(folder)

    assert read_model_file(link / NAME, 4) == b"here"


def test_a_file_that_is_too_large_is_not_read(folder: Path) -> None:
    """A sparse terabyte."""
    os.truncate(os.open(folder / NAME, os.O_CREAT | os.O_WRONLY), 1 << 40)

    with pytest.raises(ModelFormatError, match="has 1099511627776 bytes; the maximum is 100"):
        read_model_file(folder / NAME, 100)


def test_an_operators_file_may_be_anywhere_but_must_be_regular(folder: Path) -> None:
    link_outside(folder / NAME)
    assert read_operator_file(folder / NAME, 2) == b"{}"

    with pytest.raises(ModelFormatError, match="not a file"):
        read_operator_file(Path("/dev/zero"), 100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b"[" + b"[]," * MAX_JSON_VALUES + b"[]]", "JSON values; the maximum is"),
        (b"9" * 5000, "not valid JSON"),
    ],
    ids=range(8),
)
def test_json_that_is_not_an_object_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message) as raised:
        parse_json_object(Path(NAME), content)

    assert len(str(raised.value)) < 300


def test_untrusted_values_make_one_short_line() -> None:
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    for value in ("x" * 10**6, "a\nb\x1b[31m", "\ud800", deep, 10**4000, [0] * 10**5, {"a": "x" * 10**6}):
        assert len(safe_repr(value)) < 1000
        assert safe_repr(value).isprintable()
    assert safe_name("h.0.attn.c_attn.weight") == "h.0.attn.c_attn.weight"
    assert safe_name("a\nb") == "'a\\nb'"
