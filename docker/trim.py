"""Removes the files that the service never loads from an installed environment.

    /opt/venv/bin/python docker/trim.py

It trims the environment whose Python runs it. Afterwards the image's build generates a text with the remaining files.
An entry that matches no file is printed, but is not an error: wheels differ by processor and version.
"""

from __future__ import annotations

import shutil
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
    "numpy/_core/include/": "for compilers",
    "numpy/**/*.a": "for compilers",
    "numpy/_core/_simd*": "for NumPy's own tests",
    "numpy/_core/_*_tests*": "for NumPy's own tests",
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


def size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


if __name__ == "__main__":
    main()
