"""The safetensors reader checks everything in a hostile header."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.model.weights.safetensors_file import SafetensorsFile, write_safetensors


def write_raw(folder: Path, header: Any, data: bytes = b"\0" * 16, length: int | None = None) -> Path:
    """A file with exactly this header; `length` lies about its length."""
    header_bytes = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes((len(header_bytes) if length is None else length).to_bytes(8, "little") + header_bytes + data)
    return path


def entry(dtype: Any = "F32", shape: Any = (4,), offsets: Any = (0, 16), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_what_the_safetensors_package_writes_is_read(tmp_path: Path, dtype: Any) -> None:
    tensors = {"a": np.arange(6, dtype=dtype).reshape(2, 3), "b": np.zeros((0, 5), dtype), "c": np.array(3, dtype)}
    safetensors.numpy.save_file(tensors, tmp_path / "x", metadata={"format": "pt"})

    file = SafetensorsFile(tmp_path / "x")

    assert file.metadata == {"format": "pt"}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(file.view(name), tensor)


def test_a_file_is_written_in_even_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever tensors begin, so that the system can keep the file in large pages."""
    monkeypatch.setattr("distilgpt2_api.model.weights.safetensors_file.PIECE_BYTES", 100)
    tensors: dict[str, NDArray[Any]] = {"a": np.arange(990, dtype=np.int8), "b": np.zeros((0, 3), dtype=np.float32)}
    whole = io.BytesIO()
    sizes: list[int] = []

    class Recorded(io.BytesIO):
        def write(self, content: Any) -> int:
            sizes.append(len(content))
            return whole.write(content)

    write_safetensors(Recorded(), tensors, {})
    (tmp_path / "x").write_bytes(whole.getvalue())

    assert set(sizes[:-1]) == {100}
    assert 0 < sizes[-1] <= 100
    file = SafetensorsFile(tmp_path / "x")
    assert file.is_intact(is_mapped=True)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(file.view(name), tensor)


def test_what_we_write_is_read_by_the_safetensors_package(tmp_path: Path) -> None:
    tensors: dict[str, NDArray[Any]] = {
        "a": np.arange(3, dtype=np.int8),
        "b": np.arange(4, dtype=np.float32),
        "t": np.eye(3, dtype=np.float32).T,
    }
    with (tmp_path / "x").open("wb") as file:
        write_safetensors(file, tensors, {"key": "value"})

    read = safetensors.numpy.load_file(tmp_path / "x")

    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor)
    ours = SafetensorsFile(tmp_path / "x")
    assert ours.is_intact(is_mapped=False)
    assert ours.is_intact(is_mapped=True)
    assert ours.metadata["key"] == "value"
    np.testing.assert_array_equal(ours.view("b"), tensors["b"])
    np.testing.assert_array_equal(ours.view("t"), tensors["t"])


HOSTILE: dict[str, tuple[Any, str]] = {
    "not JSON": (b"{", "not valid JSON"),
    "not UTF-8": (b"\xff\xff", "not valid JSON"),
    "deeply nested": (b"[" * 100_000, "not valid JSON"),
    "a list": ([], "not a JSON object"),
    "a key twice": (b'{"a": 1, "a": 1}', "duplicate key 'a'"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, "__metadata__"),
    "an entry that is none": ({"a": 5}, "tensor a"),
    "an entry without a shape": ({"a": {"dtype": "F32", "data_offsets": [0, 16]}}, "tensor a"),
    "an entry with more": ({"a": entry(extra=1)}, "tensor a"),
    "unknown dtype": ({"a": entry("F31")}, "unknown dtype 'F31'"),
    "a dtype that can't be hashed": ({"a": entry(["F32"])}, "unknown dtype"),
    "negative shape": ({"a": entry(shape=[-4])}, "bad shape"),
    "shape of booleans": ({"a": entry(shape=[True, 4])}, "bad shape"),
    "shape of floats": ({"a": entry(shape=[4.0])}, "bad shape"),
    "too many dimensions": ({"a": entry(shape=[1] * 8 + [4])}, "bad shape"),
    "a shape that overflows to 4": ({"a": entry(shape=[2**62, 2**62, 4])}, "don't hold"),
    "a shape that is not the bytes": ({"a": entry(shape=[5])}, "16 bytes don't hold"),
    "offsets the wrong way round": ({"a": entry(offsets=[16, 0])}, "bad data_offsets"),
    "three offsets": ({"a": entry(offsets=[0, 8, 16])}, "bad data_offsets"),
    "negative offset": ({"a": entry(offsets=[-16, 0])}, "bad data_offsets"),
    "beyond the file": ({"a": entry(shape=[8], offsets=[0, 32])}, "truncated"),
    "a tensor over another": (
        {"a": entry(), "b": entry(shape=[2], offsets=[8, 16])},
        "tensor b overlaps another",
    ),
    "a hole before": ({"a": entry(shape=[2], offsets=[8, 16])}, "follows a hole"),
    "a hole between": (
        {"a": entry(shape=[1], offsets=[0, 4]), "b": entry(shape=[2], offsets=[8, 16])},
        "tensor b follows a hole",
    ),
    "bytes after": ({"a": entry(shape=[2], offsets=[0, 8])}, "belong to no tensor"),
}


@pytest.mark.parametrize(("header", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_refused(tmp_path: Path, header: Any, message: str) -> None:
    path = write_raw(tmp_path, header)

    with pytest.raises(ModelFormatError, match=message) as raised:
        SafetensorsFile(path)

    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("length", "message"),
    [(2**63, "at most"), (8_000_001, "at most"), (8_000_000, "truncated"), (1000, "truncated")],
)
def test_a_header_longer_than_the_file_takes_no_memory(tmp_path: Path, length: int, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        SafetensorsFile(write_raw(tmp_path, {"a": entry()}, length=length))


@pytest.mark.parametrize("content", [b"", b"\0", b"\0" * 8], ids=["empty", "one byte", "no header"])
def test_a_file_too_short(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)

    with pytest.raises(ModelFormatError, match="x: "):
        SafetensorsFile(tmp_path / "x")


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": np.arange(5, dtype=np.float32)}, tmp_path / "x")
    content = (tmp_path / "x").read_bytes()

    for length in range(len(content)):
        (tmp_path / "x").write_bytes(content[:length])
        with pytest.raises(ModelFormatError):
            SafetensorsFile(tmp_path / "x")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="can't be read"):
        SafetensorsFile(tmp_path / "x")


def test_a_tensor_of_an_unsupported_type_can_exist_but_not_be_read(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"mask": np.ones(3, dtype=bool)}, tmp_path / "x")
    file = SafetensorsFile(tmp_path / "x")

    with pytest.raises(ModelFormatError, match="tensor mask has type BOOL"):
        file.view("mask")
