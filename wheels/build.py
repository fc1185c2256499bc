"""Builds the source distribution, and from it one wheel for each platform: make wheels.

    python wheels/build.py --compiler .tools/native/bin/python --out dist

A wheel has no code of Python's own interface, because ctypes loads the library: one serves every version of Python
(`py3-none-PLATFORM`). All are compiled on this machine, by the compiler that pyproject.toml pins, and the same sources
give the same bytes. docs/decisions/0028-wheel-tags.md has the reasons for the tags.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLATFORMS = {
    "linux/amd64": "manylinux_2_31_x86_64",
    "linux/arm64": "manylinux_2_31_aarch64",
    "darwin/arm64": "macosx_11_0_arm64",
}
"""The platforms of native/build.py that get a wheel, with the wheel's tag."""
NAME = "distilgpt2_api"
DATE = {"SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", "1451606400")}
"""The date of the files in the archives; by default Poetry's, 2016-01-01, because `wheel` would take the present."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", required=True, help="the Python that has the compiler, ziglang")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the files (default: dist)")
    parser.add_argument("--platform", action="append", choices=PLATFORMS, help="only this one; repeatable")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for old in args.out.glob(f"{NAME}-*"):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="wheels-") as folder:
        work = Path(folder)
        sdist = build("sdist", ROOT, work)
        with tarfile.open(sdist) as archive:
            archive.extractall(work, filter="data")
        sources = work / sdist.name.removesuffix(".tar.gz")
        wheels = [build_wheel(sources, work, name, args.compiler) for name in args.platform or PLATFORMS]
        for path in (sdist, *wheels):
            sys.stdout.write(f"{shutil.move(path, args.out / path.name)}\n")


def build_wheel(sources: Path, work: Path, platform: str, compiler: str) -> Path:
    """Returns the path of the platform's wheel, in `work`. Raises CalledProcessError."""
    package = sources / "src" / NAME / "model" / "kernels"
    for other in package.glob("libkernels.*"):
        other.unlink()
    out = work / platform.replace("/", "-")
    run([compiler, str(sources / "native" / "build.py"), "--platform", platform, "--out", str(out)])
    (library,) = out.glob("libkernels.*")
    shutil.copy(library, package)
    built = build("wheel", sources, out, KERNELS_PREBUILT="1")
    # Poetry names the Python and the machine that it runs on.
    tags = ["--python-tag=py3", "--abi-tag=none", f"--platform-tag={PLATFORMS[platform]}"]
    run([sys.executable, "-m", "wheel", "tags", "--remove", *tags, str(built)])
    (wheel,) = out.glob("*.whl")
    return wheel


def build(kind: str, sources: Path, out: Path, **environment: str) -> Path:
    """Returns the path of what pyproject.toml's backend builds, a `wheel` or an `sdist`. Raises CalledProcessError.

    Without isolation, so that the backend has the version of wheels/requirements.txt; the compiler is elsewhere.
    """
    words = [f"--{kind}", "--no-isolation", "--skip-dependency-check", "--outdir", str(out), str(sources)]
    run([sys.executable, "-m", "build", *words], **environment)
    (built,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def run(command: list[str], **environment: str) -> None:
    # Standard output is for the names of the files.
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | DATE | environment)  # noqa: S603 - our own words


if __name__ == "__main__":
    main()
