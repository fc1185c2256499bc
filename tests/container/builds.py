"""Builds the image from a copy of the checkout, so that a test may change files."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "docker" / "build.sh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    exit_status: int
    output: str
    seconds: float

    def is_cached(self, step: str) -> bool:
        """Whether the Dockerfile's step that contains the text `step` came from the cache."""
        numbers = {
            match[1]
            for match in re.finditer(r"^#(\d+) \[[^\]]+\] (.*)$", self.output, re.MULTILINE)
            if step in match[2]
        }
        assert len(numbers) == 1, f"{len(numbers)} steps hold {step!r}:\n{self.output}"
        return re.search(rf"^#{numbers.pop()} CACHED$", self.output, re.MULTILINE) is not None


def copy_checkout(target: Path) -> Path:
    """Copy all files that git tracks or would add: a clone with the uncommitted changes."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listing.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def build(context: Path, tag: str, *flags: str, **arguments: str) -> Build:
    """Run `docker build`; keyword arguments are build arguments."""
    build_arguments = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    start = time.monotonic()
    result = subprocess.run(
        [BUILD, "--progress=plain", "--tag", tag, *flags, *build_arguments, context],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    seconds = time.monotonic() - start
    return Build(exit_status=result.returncode, output=result.stdout + result.stderr, seconds=seconds)
