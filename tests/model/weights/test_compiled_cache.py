"""The cache of compiled weights: used if valid, rebuilt if not, and never required."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.weights.compiled_cache import load_weights
from distilgpt2_api.model.weights.prepared import PreparedWeights
from distilgpt2_api.model.weights.safetensors_file import write_safetensors


class FullDisk:
    """A file that accepts a limited number of writes."""

    def __init__(self, file: IO[bytes], remaining: Iterator[int]) -> None:
        self._file = file
        self._remaining = remaining

    def write(self, content: Any) -> int:
        if next(self._remaining, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(content)


class Loader:
    """Loads one model with one cache folder, and records the reports."""

    def __init__(self, model: Any, cache_folder: Path | None) -> None:
        self.model = model
        self.cache_folder = cache_folder
        self.reports: list[str] = []

    def load(self, precision: Precision = Precision.INT8) -> PreparedWeights:
        config = read_model_config(self.model.path)
        return load_weights(
            self.model.path,
            config,
            precision=precision,
            cache_folder=self.cache_folder,
            report=self.reports.append,
        )

    @property
    def files(self) -> list[Path]:
        assert self.cache_folder is not None
        return sorted(self.cache_folder.iterdir())


@pytest.fixture
def loader(make_model: Any, tmp_path: Path) -> Loader:
    return Loader(make_model(), tmp_path / "cache" / "compiled")


def check_same(weights: PreparedWeights, expected: PreparedWeights) -> None:
    assert weights.tensors.keys() == expected.tensors.keys()
    for name, tensor in weights.tensors.items():
        np.testing.assert_array_equal(tensor, expected.tensors[name])


def test_the_second_load_is_from_the_cache(loader: Loader) -> None:
    """Same weights, one file, no further write, nothing to report."""
    first = loader.load()
    (path,) = loader.files
    written = path.stat().st_mtime_ns, path.stat().st_ino

    second = loader.load()

    check_same(second, first)
    check_same(second, Loader(loader.model, None).load())
    assert second.file is not None
    assert second.file.path == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written
    assert loader.files == [path]
    assert not loader.reports


def test_each_precision_and_model_has_its_own_file(loader: Loader, make_model: Any) -> None:
    for precision in (Precision.INT8, Precision.F32):
        loader.load(precision)
    other = Loader(make_model(layer_norm_epsilon=1e-3), loader.cache_folder)
    other.load()

    assert len(loader.files) == 3
    check_same(loader.load(), Loader(loader.model, None).load())


def test_changed_weights_are_noticed(loader: Loader) -> None:
    """One value, in a file of the same size and modification time."""
    loader.load()
    path = loader.model.path / "model.safetensors"
    before = path.stat()
    loader.model.tensors["ln_f.bias"][3] += 1
    loader.model.save()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    weights = loader.load()

    np.testing.assert_array_equal(weights.tensors["ln_f.bias"], loader.model.tensors["ln_f.bias"])


def test_a_value_between_the_samples_of_a_large_file_is_noticed(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files larger than `WHOLE_BYTES` are named by samples; after another modification time all bytes are hashed."""
    monkeypatch.setattr("distilgpt2_api.model.weights.fingerprint.WHOLE_BYTES", 1000)
    monkeypatch.setattr("distilgpt2_api.model.weights.fingerprint.SAMPLE_BYTES", 16)
    loader.load()
    path = loader.model.path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1  # the last sample is the last 16 bytes
    path.write_bytes(content)
    os.utime(path, (1, 1))

    weights = loader.load()

    check_same(weights, Loader(loader.model, None).load())
    assert [report for report in loader.reports if "have changed" in report]


def test_a_copy_with_other_times_is_not_compiled_again(loader: Loader) -> None:
    """Archives and image layers round or lose times; the content decides."""
    loader.load()
    os.utime(loader.model.path / "model.safetensors", (1, 1))

    loader.load()

    assert not loader.reports
    assert len(loader.files) == 1


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def forget_source(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"source"', b'"sourse"'))


def spoil_source(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"modified_s", b"modified_x"))


SPOILERS = [
    flip_last_byte,
    truncate,
    forget_source,
    spoil_source,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(os.urandom(1000)),
    lambda path: path.write_bytes(path.read_bytes().replace(b"compiled weights 2", b"compiled weights 1")),
]


@pytest.mark.parametrize("spoil", SPOILERS, ids=range(len(SPOILERS)))
def test_a_damaged_file_is_compiled_again(loader: Loader, spoil: Any) -> None:
    """With one line that says why; the next load reports nothing."""
    loader.load()
    (path,) = loader.files
    spoil(path)

    weights = loader.load()
    check_same(weights, Loader(loader.model, None).load())
    assert len(loader.reports) == 1
    assert str(path) in loader.reports[0]
    assert "\n" not in loader.reports[0]

    loader.load()
    assert len(loader.reports) == 1


def test_a_folder_in_place_of_the_file(loader: Loader) -> None:
    loader.load()
    (path,) = loader.files
    path.unlink()
    path.mkdir()

    check_same(loader.load(), Loader(loader.model, None).load())
    assert loader.reports
    assert loader.files == [path]


@pytest.mark.parametrize("place", ["cache", "cache/compiled"])
def test_a_cache_that_cannot_be_written_costs_a_line_and_no_more(loader: Loader, tmp_path: Path, place: str) -> None:
    """A file is in place of the folder, or of its parent."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("in the way")

    weights = loader.load()

    check_same(weights, Loader(loader.model, None).load())
    assert len(loader.reports) == 1
    assert "can't cache" in loader.reports[0]


def test_no_partial_file_remains(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)

    loader.load()

    assert loader.files == []
    assert "No space left" in loader.reports[0]


def test_a_disk_that_fills_up_at_any_write_costs_a_line_and_no_more(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write in turn finds no space; no partial file remains."""
    monkeypatch.setattr("distilgpt2_api.model.weights.safetensors_file.PIECE_BYTES", 1024)
    expected = Loader(loader.model, None).load()
    for num_written in range(0, 40, 7):
        remaining = iter(range(num_written))

        def write(file: IO[bytes], tensors: Any, metadata: Any, remaining: Iterator[int] = remaining) -> None:
            write_safetensors(FullDisk(file, remaining), tensors, metadata)  # type: ignore[arg-type]  # as much as it needs

        monkeypatch.setattr("distilgpt2_api.model.weights.compiled_file.write_safetensors", write)
        check_same(loader.load(), expected)

        assert loader.files == []
        assert "No space left" in loader.reports.pop()
        assert not loader.reports


def test_a_limit_on_the_size_of_files_costs_a_line_and_no_more(loader: Loader) -> None:
    """The kernel's own refusal: `ulimit -f`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        weights = loader.load()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    check_same(weights, Loader(loader.model, None).load())
    assert loader.files == []
    assert "File too large" in loader.reports[0]


def test_a_pipe_in_place_of_the_file_does_not_block(loader: Loader) -> None:
    loader.load()
    (path,) = loader.files
    path.unlink()
    os.mkfifo(path)

    check_same(loader.load(), Loader(loader.model, None).load())
    assert len(loader.reports) == 1
    assert path.is_file()


def test_a_cached_file_does_not_hide_a_bad_source(loader: Loader) -> None:
    loader.load()
    loader.model.save({"wte.weight": loader.model.tensors["wte.weight"]})

    with pytest.raises(ModelFormatError, match="describes"):
        loader.load()


def test_the_model_may_move(loader: Loader, tmp_path: Path) -> None:
    """The same weights elsewhere use the same compiled file."""
    loader.load()
    shutil.copytree(loader.model.path, tmp_path / "moved")
    config = read_model_config(tmp_path / "moved")

    load_weights(
        tmp_path / "moved",
        config,
        precision=Precision.INT8,
        cache_folder=loader.cache_folder,
        report=loader.reports.append,
    )

    assert len(loader.files) == 1
    assert not loader.reports
