"""Checkpoints of `torch.save`: tensors are read, nothing is run, and a small file can't become a large model."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.torch_file import (
    ORDERED_DICT,
    View,
    integer,
    integers,
    pack_legacy,
    pack_zip,
    save,
    text,
)
from numpy.typing import NDArray

from distilgpt2_api.core.errors import ModelError, ModelFormatError, UnsupportedModelError
from distilgpt2_api.model.weights.pickled_file import PickledFile

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)
ITEMS = VALUES.reshape(-1)


@pytest.fixture
def open_file(tmp_path: Path) -> Callable[[bytes], PickledFile]:
    def write_and_open(content: bytes) -> PickledFile:
        path = tmp_path / "pytorch_model.bin"
        path.write_bytes(content)
        return PickledFile(path)

    return write_and_open


def storage(num_items: int = 12, *, kind: bytes = b"torch\nFloatStorage", key: str = "0", rest: bytes = b"") -> bytes:
    """The opcodes of a storage."""
    return b"(" + text("storage") + b"c" + kind + b"\n" + text(key) + text("cpu") + integer(num_items) + rest + b"tQ"


def tensor(shape: bytes, strides: bytes, *, offset: int = 0, of: bytes = storage()) -> bytes:
    """The opcodes of a tensor."""
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + of + integer(offset) + shape + strides + b"\x89N" + b"tR"


def pickled(value: bytes, *, name: str = "a") -> bytes:
    """The opcodes of a state dict with one value."""
    return b"\x80\x02" + ORDERED_DICT + text(name) + value + b"s."


def archive(content: bytes, values: NDArray[Any] = ITEMS) -> bytes:
    return pack_zip(content, {"0": values})


@pytest.mark.parametrize("is_legacy", [False, True])
@pytest.mark.parametrize("wrapped_in", [None, "state_dict", "model_state_dict", "model"])
def test_tensors_are_read_from_both_formats(is_legacy: bool, wrapped_in: str | None, open_file: Any) -> None:
    """Alone, or beside an optimizer's state; views of a shared storage, and one that is not contiguous."""
    tensors: dict[str, Any] = {
        "whole": VALUES,
        "half": VALUES.astype(np.float16),
        "bits": np.array([0x3F80, 0x4000], np.uint16),
        "transposed": View(storage=ITEMS, offset=0, shape=(4, 3), strides=(1, 4)),
        "part": View(storage=ITEMS, offset=4, shape=(2, 2), strides=(2, 1)),
        "scalar": np.array(7, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }

    file = open_file(save(tensors, is_legacy=is_legacy, wrapped_in=wrapped_in))

    assert {name: span.dtype for name, span in file.spans.items()} == {
        **dict.fromkeys(tensors, "F32"),
        "half": "F16",
        "bits": "BF16",
    }
    expected = tensors | {"transposed": VALUES.T, "part": ITEMS[4:8].reshape(2, 2)}
    for name, values in expected.items():
        np.testing.assert_array_equal(file.read(name), values)


class Evil:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('the pickle ran')",)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("pack", [lambda content: pack_zip(content, {}), lambda content: pack_legacy(content, {})])
def test_a_pickle_that_names_a_function_is_refused_by_name(protocol: int, pack: Any, open_file: Any) -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"refers to (__builtin__|builtins)\.exec, which could run code; only"
    ):
        open_file(pack(pickle.dumps({"a": Evil()}, protocol)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"cos\nsystem\n" + text("true") + b"\x85R", "refers to os.system, which could run code"),
        (
            b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n",
            "refers to torch._utils._rebuild_tensor_v2.__globals__, wh",
        ),
        (b"c" + b"x" * 300 + b"\ny\n", "xxx.y', which could run code"),
        (b"(" + text("true") + b"ios\nsystem\n", "the pickle has the opcode INST"),
        (b"ccollections\nOrderedDict\n)\x81", "the pickle has the opcode NEWOBJ"),
        (b"\x82\x01", "the pickle has the opcode EXT1"),
        (storage(rest=b"(" + text("1") + integer(0) + integer(1) + b"t"), "the pickle has a view of a storage"),
        (b"})Ns", "a key that is no text or integer"),
    ],
)
def test_what_could_run_code_is_refused(value: bytes, message: str, open_file: Any) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        open_file(archive(pickled(value)))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


TWO = integers((3, 4))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(TWO, integers((4, 1)), offset=1), "a tensor is larger than its storage"),
        (tensor(integers((3, 5)), integers((1, 1))), "a tensor is larger than its storage"),
        (tensor(integers((2**30, 2**30)), integers((0, 0))), "a tensor is larger than its storage"),
        (tensor(TWO, integers((-4, 1)), offset=11), "a tensor has an impossible shape"),
        (tensor(TWO, integers((4, 1)), offset=-1), "a tensor has an impossible shape"),
        (tensor(TWO, integers((1,))), "a tensor has an impossible shape"),
        (tensor(integers((1,) * 9), integers((1,) * 9)), "a tensor has an impossible shape"),
        (tensor(b"(\x88\x88t", b"(\x88\x88t"), "a tensor has an impossible shape"),
        (tensor(TWO, TWO, of=integer(1)), "a tensor has impossible arguments"),
        (tensor(TWO, integers((4, 1)), of=storage(-12)), "a storage has an impossible size"),
        (tensor(TWO, integers((4, 1)), of=storage(13)), "the storage 0 is missing, or its size differs"),
        (
            tensor(TWO, integers((4, 1)), of=storage(kind=b"torch\nHalfStorage")),
            "the storage 0 is missing, or its size",
        ),
        (tensor(TWO, integers((4, 1)), of=storage(key="../../x")), "the storage ../../x is missing"),
        (storage(6) + b"0" + storage(12), "two storages have the same key"),
        (integer(1) + b"Q", "a persistent id is no storage"),
        (b"ctorch._utils\n_rebuild_parameter\n(" + integer(1) + b"tR", "a parameter is no tensor"),
        (b"ccollections\nOrderedDict\n(" + integer(1) + b"tR", "a dictionary has arguments"),
        (integer(1) + b")R", "a value that is no function is called"),
        (integer(1) + b"}b", "only a dictionary can have attributes"),
        (integer(1) + integer(1) + b"a", "a value that is no list is appended to"),
        (integer(1) + integer(1) + integer(1) + b"s", "a value that is no dictionary gets an item"),
        (b"h\x07", "the pickle is malformed"),
        (b"t", "the pickle is malformed"),
        (b"\x87", "the pickle takes more values than it has"),
        (b"(", "the pickle takes more values than it has"),
        (b"\x8d" + b"\xff" * 8, "the pickle is malformed"),
        (b"r\xff\xff\xff\xff" * 2 + b"\xff", "the pickle is malformed"),
        (b"]" * 120_001, "the pickle has more than 120000 opcodes"),
        (b"ctorch\nFloatStorage\n" * 12_001, "the pickle has more than 120000 opcodes"),
        (integer(1), "no state dict"),
    ],
)
def test_an_impossible_pickle_is_refused_in_one_line(value: bytes, message: str, open_file: Any) -> None:
    with pytest.raises(ModelFormatError) as caught:
        open_file(archive(pickled(value)))
    assert message in str(caught.value)
    assert "pytorch_model.bin: " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_tensors_that_overlap_can_not_outgrow_the_file(open_file: Any) -> None:
    values = np.zeros(10_000, np.float32)
    tied = View(storage=values, offset=0, shape=(10_000,), strides=(1,))
    assert len(open_file(save({f"h.{at}": tied for at in range(100)})).spans) == 100
    with pytest.raises(ModelFormatError, match="its tensors overlap"):
        open_file(save({f"h.{at}": View(storage=values, offset=at, shape=(9000,), strides=(1,)) for at in range(100)}))


def rewrite(content: bytes, *, compression: int = zipfile.ZIP_STORED, leave_out: str = "", extra: str = "") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w", compression) as changed:
        for entry in source.infolist():
            if entry.filename != leave_out:
                changed.writestr(entry.filename, source.read(entry))
        if extra:
            changed.writestr(extra, b"big")
    return target.getvalue()


def truncated_directory(content: bytes) -> bytes:
    """The directory names a storage that begins beyond the end."""
    at = content.rindex(b"PK\x01\x02", 0, content.index(b"archive/data/0", content.index(b"PK\x01\x02")))
    return content[: at + 42] + struct.pack("<I", len(content) + 9) + content[at + 46 :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: rewrite(content, compression=zipfile.ZIP_DEFLATED), "a compressed or encrypted file"),
        (lambda content: rewrite(content, leave_out="archive/data.pkl"), "the archive has no data.pkl, or several"),
        (lambda content: rewrite(content, extra="other/data.pkl"), "the archive has no data.pkl, or several"),
        (lambda content: rewrite(content, leave_out="archive/data/0"), "the storage 0 is missing"),
        (
            lambda content: rewrite(rewrite(content, leave_out="archive/byteorder"), extra="archive/byteorder"),
            "byte order",
        ),
        (lambda content: content[:-30], "the zip archive is damaged"),
        (truncated_directory, "the zip archive is damaged"),
        (lambda content: content[100:], "the pickle is malformed"),
        (lambda content: content[:4] + content[100:], "the zip archive is damaged"),
        (lambda content: content[:3], "the pickle is malformed"),
        (lambda _: b"", "the pickle is malformed"),
        (lambda _: pickle.dumps(1), "it begins with another pickle"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1", "a pointer of git-lfs"),
    ],
)
def test_a_damaged_archive_is_refused(change: Any, message: str, open_file: Any) -> None:
    with pytest.raises(ModelError) as caught:
        open_file(change(save({"a": VALUES})))
    assert message in str(caught.value)


def test_a_pickle_has_a_maximum_size(open_file: Any) -> None:
    with pytest.raises(ModelFormatError, match="a pickle has 9000019 bytes; at most 2000000 are supported"):
        open_file(archive(b"\x80\x02X" + struct.pack("<I", 9_000_000) + b"x" * 9_000_000 + b"0}" + b"0" * 9 + b"."))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (save({"a": VALUES}, is_legacy=True)[:-1], "the file is truncated"),
        (
            pack_legacy(pickled(tensor(TWO, integers((4, 1)))), {"0": ITEMS[:11]}),
            "the storage 0 is missing, or its size",
        ),
        (pack_legacy(pickled(tensor(TWO, integers((4, 1)))), {"1": ITEMS}), "the list of storages differs"),
        (pack_legacy(pickled(tensor(TWO, integers((4, 1)))), {}), "the list of storages differs"),
    ],
)
def test_a_damaged_legacy_file_is_refused(content: bytes, message: str, open_file: Any) -> None:
    with pytest.raises(ModelFormatError, match=message):
        open_file(content)


def test_a_legacy_file_of_another_machine_is_refused(open_file: Any) -> None:
    content = save({"a": VALUES}, is_legacy=True)
    with pytest.raises(UnsupportedModelError, match="another byte order"):
        open_file(content.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"))
