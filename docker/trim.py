"""Removes the files that the service never loads from an installed environment.

    /opt/venv/bin/python docker/trim.py

It trims the environment whose Python runs it, and removes the symbols for debuggers from its libraries. Afterwards the
image's build generates a text with the remaining files. An entry that matches no file is printed, but is not an error:
wheels differ by processor and version.
"""

from __future__ import annotations

import shutil
import struct
import sys
import sysconfig
from importlib.metadata import Distribution, distributions
from pathlib import Path

DISTRIBUTIONS = {
    # tokenizers depends on huggingface-hub, but imports it only in `from_pretrained`.
    "huggingface-hub": "the image contains its model; a server never talks to the hub",
    "hf-xet": "only for huggingface-hub",
    "httpx2": "only for huggingface-hub",
    "httpcore2": "only for httpx2",
    "truststore": "only for httpx2",
    "fsspec": "only for huggingface-hub",
    "filelock": "only for huggingface-hub",
    "tqdm": "only for huggingface-hub",
    "pyyaml": "only for huggingface-hub",
}

FILES = {
    "numpy/f2py/": "for compilers",
    "numpy/distutils/": "for compilers",
    "numpy/_core/include/": "for compilers",
    "numpy/**/*.a": "for compilers",
    "numpy/fft/": "NumPy imports it at its first use, and the service uses none",
    "numpy/ma/": "the same",
    "numpy/polynomial/": "the same",
    "numpy/testing/": "the same",
    "numpy/random/": "the same: the service draws with the numbers of its own generator",
    "numpy/_core/_simd*": "for NumPy's own tests",
    "numpy/_core/_*_tests*": "for NumPy's own tests",
    "gunicorn/asgi/": "for Gunicorn's own ASGI worker; ours is Uvicorn's",
    "gunicorn/dirty/": "for Gunicorn's own workers of long tasks",
    "pydantic/v1/": "for models of Pydantic 1; FastAPI checks whether it is there",
    "**/tests/": "packages' own tests",
    "**/*.pyi": "for type checkers",
    "**/*.pxd": "for compilers",
    "**/*.pyx": "for compilers",
    "**/*.[ch]": "for compilers",
    "**/*.hpp": "for compilers",
}

SCRIPTS = {"f2py", "numpy-config", "dotenv", "hf", "tiny-agents"}
"""Scripts in bin/ of the parts removed above."""


def main() -> None:
    site_packages = Path(sysconfig.get_path("purelib"))
    scripts = Path(sysconfig.get_path("scripts"))
    before = size_of(site_packages)

    installed = {normal(found.metadata["Name"]): found for found in distributions(path=[str(site_packages)])}
    for name in DISTRIBUTIONS:
        if name in installed:
            remove_distribution(installed[name])
        else:
            print(f"trim: no distribution {name}", file=sys.stderr)
    for pattern in FILES:
        matches = list(site_packages.glob(pattern))
        for path in matches:
            remove(path)
        if not matches:
            print(f"trim: nothing matches {pattern}", file=sys.stderr)
    for name in SCRIPTS:
        (scripts / name).unlink(missing_ok=True)
    remove_empty_folders(site_packages)
    for path in site_packages.rglob("*.so*"):
        strip(path)

    print(f"trim: {before / 1e6:.1f} MB are now {size_of(site_packages) / 1e6:.1f} MB")


def normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def remove_distribution(distribution: Distribution) -> None:
    for file in distribution.files or []:
        Path(str(distribution.locate_file(file))).unlink(missing_ok=True)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_empty_folders(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()


def strip(library: Path) -> None:
    """Cut an ELF library off after its last segment, and its table of sections out of its header.

    The loader reads segments alone. Behind them lie debugging information and the names of private functions, most of
    the file in some wheels. In a program of its own, because the image that builds has no binutils.
    """
    data = library.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
        return
    (headers_start,) = struct.unpack_from("<Q", data, 32)
    header_size, num_headers = struct.unpack_from("<HH", data, 54)
    end = headers_start + header_size * num_headers
    for index in range(num_headers):
        start, size = struct.unpack_from("<Q16xQ", data, headers_start + index * header_size + 8)
        end = max(end, start + size)
    no_sections = struct.pack("<Q", 0)  # the table's place
    no_counts = struct.pack("<HHH", 64, 0, 0)  # an entry's size, the number of entries, the index of the names
    library.write_bytes(data[:40] + no_sections + data[48:58] + no_counts + data[64:end])


def size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


if __name__ == "__main__":
    main()
