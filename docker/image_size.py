"""Says what each layer of an image holds and weighs, and fails above the budget.

    python docker/image_size.py IMAGE

Unpacked: the bytes of the layers' files, as a disk holds them. Compressed: the layers as gzip (level 6) makes them,
which is what a registry sends. MB are 10^6 bytes.
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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

MAX_UNPACKED_MB = 420
MAX_COMPRESSED_MB = 190
CONTENTS = {
    "--from=dependencies": "dependencies: OpenVINO, NumPy, FastAPI, Gunicorn …",
    "--from=model": "model: compiled weights and tokenizer",
    "--from=code": "code: our wheel and Gunicorn's configuration",
    "chmod a-s": "base, corrected: no pip, no set-user-id files",
}
"""What a line of the Dockerfile brings, by a word of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    digest: str
    content: str
    unpacked_bytes: int
    compressed_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("--max-unpacked", type=float, default=MAX_UNPACKED_MB, metavar="MB")
    parser.add_argument("--max-compressed", type=float, default=MAX_COMPRESSED_MB, metavar="MB")
    arguments = parser.parse_args()

    layers = read_layers(arguments.image)
    unpacked_mb = sum(layer.unpacked_bytes for layer in layers) / 1e6
    compressed_mb = sum(layer.compressed_bytes for layer in layers) / 1e6
    print(f"{'unpacked':>9}  {'gzip':>7}  layer")
    for layer in layers:
        print(f"{layer.unpacked_bytes / 1e6:6.1f} MB  {layer.compressed_bytes / 1e6:4.1f} MB  {layer.content}")
    print(f"{unpacked_mb:6.1f} MB  {compressed_mb:4.1f} MB  {arguments.image}, {len(layers)} layers")

    is_over = False
    for what, size, limit in (
        ("unpacked", unpacked_mb, arguments.max_unpacked),
        ("compressed", compressed_mb, arguments.max_compressed),
    ):
        if size > limit:
            print(f"error: {size:.1f} MB {what} are above the budget of {limit:g} MB", file=sys.stderr)
            is_over = True
    sys.exit(is_over)


def read_layers(image: str) -> list[Layer]:
    """From the lowest to the topmost, empty ones left out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.tar")
        subprocess.run(["docker", "save", "--output", path, image], check=True)
        with tarfile.open(path) as archive:
            manifest = json.load(extract(archive, "manifest.json"))[0]
            config = json.load(extract(archive, manifest["Config"]))
            steps = [step.get("created_by", "") for step in config["history"] if not step.get("empty_layer")]
            return [
                measure(extract(archive, name), digest=digest, content=content_of(index, step))
                for index, (name, digest, step) in enumerate(
                    zip(manifest["Layers"], config["rootfs"]["diff_ids"], steps, strict=True)
                )
            ]


def extract(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    # Of two equal layers Docker saves one, and a link to it.
    file = archive.extractfile(name)
    assert file is not None, name
    return file


def content_of(index: int, step: str) -> str:
    if index == 0 and "rootfs" not in step:
        return "base: Debian and Python"
    return next((content for word, content in CONTENTS.items() if word in step), step.removeprefix("/bin/sh -c ")[:60])


def measure(file: IO[bytes], *, digest: str, content: str) -> Layer:
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
        unpacked_bytes = sum(member.size for member in layer if member.isreg())
    return Layer(digest=digest, content=content, unpacked_bytes=unpacked_bytes, compressed_bytes=compressed_bytes)


if __name__ == "__main__":
    main()
