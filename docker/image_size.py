"""Prints the content and the size of each layer of an image, and fails above the budget.

    python docker/image_size.py [--target hardened] IMAGE

Unpacked: the size of the layers' files on disk. Compressed: the size of the layers after gzip (level 6), as a registry
sends them. 1 MB is 10^6 bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import repeat
from pathlib import Path
from typing import IO, cast

BUDGETS_MB = {"runtime": (280, 145), "hardened": (225, 125)}
"""For each image of the Dockerfile, with a model of DistilGPT-2's shape in int8: unpacked, compressed."""
CONTENTS = {
    "*/site-packages/numpy/*": "dependencies: NumPy, tokenizers, FastAPI, Gunicorn …",
    "opt/models/*": "model: compiled weights and tokenizer",
    "*/site-packages/distilgpt2_api/*": "code: our wheel with the kernels, and Gunicorn's configuration",
    "etc/debian_version": "base: Debian and Python, or Python alone",
}
"""A layer's description for a pattern of its files; the first match wins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    content: str
    unpacked_bytes: int
    compressed_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument(
        "--target", choices=BUDGETS_MB, default="runtime", help="whose budget it has (default: runtime)"
    )
    parser.add_argument("--max-unpacked", type=float, metavar="MB")
    parser.add_argument("--max-compressed", type=float, metavar="MB")
    arguments = parser.parse_args()
    max_unpacked_mb, max_compressed_mb = BUDGETS_MB[arguments.target]

    layers = read_layers(arguments.image)
    unpacked_mb = sum(layer.unpacked_bytes for layer in layers) / 1e6
    compressed_mb = sum(layer.compressed_bytes for layer in layers) / 1e6
    print(f"{'unpacked':>9}  {'gzip':>7}  layer")
    for layer in layers:
        print(f"{layer.unpacked_bytes / 1e6:6.1f} MB  {layer.compressed_bytes / 1e6:4.1f} MB  {layer.content}")
    print(f"{unpacked_mb:6.1f} MB  {compressed_mb:4.1f} MB  {arguments.image}, {len(layers)} layers")

    is_over = False
    for what, size, limit in (
        ("unpacked", unpacked_mb, arguments.max_unpacked or max_unpacked_mb),
        ("compressed", compressed_mb, arguments.max_compressed or max_compressed_mb),
    ):
        if size > limit:
            print(f"error: {size:.1f} MB {what} exceed the budget of {limit:g} MB", file=sys.stderr)
            is_over = True
    sys.exit(is_over)


def read_layers(image: str) -> list[Layer]:
    """The image's layers from the bottom to the top, without empty ones."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.tar")
        subprocess.run(["docker", "save", "--output", path, image], check=True)
        with tarfile.open(path) as archive:
            manifest = json.load(extract(archive, "manifest.json"))[0]
        with ThreadPoolExecutor() as pool:  # zlib releases the GIL
            return list(pool.map(measure, repeat(path), manifest["Layers"]))


def extract(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    # Docker saves the second of two equal layers as a link.
    file = archive.extractfile(name)
    assert file is not None, name
    return file


def measure(image: Path, name: str) -> Layer:
    with tarfile.open(image) as archive:
        file = extract(archive, name)
        is_compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        plain = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if is_compressed else file
        compressor = zlib.compressobj(level=6, wbits=31)
        compressed_bytes = 0
        while chunk := plain.read(1 << 20):
            compressed_bytes += len(compressor.compress(chunk))
        compressed_bytes += len(compressor.flush())
        plain.seek(0)
        with tarfile.open(fileobj=plain) as layer:
            files = {member.name: member.size for member in layer if not member.isdir()}
    return Layer(content=content_of(files), unpacked_bytes=sum(files.values()), compressed_bytes=compressed_bytes)


def content_of(names: Iterable[str]) -> str:
    for pattern, content in CONTENTS.items():
        if any(fnmatch(name.removeprefix("./"), pattern) for name in names):
            return content
    return "?"


if __name__ == "__main__":
    main()
