"""docker/compare-builds.sh, which says whether a published image and one built again are the same."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(shutil.which("jq") is None, reason="jq: not installed")
PATH = os.environ["PATH"]


def manifest(config: str, *layers: str) -> bytes:
    named = [{"digest": f"sha256:{layer}"} for layer in layers]
    return json.dumps({"config": {"digest": f"sha256:{config}"}, "layers": named}).encode()


def write_archive(path: Path, content: bytes) -> Path:
    """An archive in OCI's layout with one image."""
    digest = hashlib.sha256(content).hexdigest()
    index = json.dumps({"manifests": [{"digest": f"sha256:{digest}"}]}).encode()
    with tarfile.open(path, "w") as archive:
        for name, data in (("index.json", index), (f"blobs/sha256/{digest}", content)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("rebuilt", "status", "words"),
    [
        (manifest("aa", "bb", "cc"), 0, "the same, byte for byte"),
        (manifest("aa", "bb", "dd"), 0, "only the compression differs"),
        (manifest("ab", "bb", "cc"), 1, "error: the images differ"),
    ],
)
def test_images_are_compared(rebuilt: bytes, status: int, words: str, run_command: Any, tmp_path: Path) -> None:
    published = tmp_path / "published.json"
    published.write_bytes(manifest("aa", "bb", "cc"))
    archive = write_archive(tmp_path / "rebuilt.tar", rebuilt)
    result = run_command(["docker/compare-builds.sh", published, archive], PATH=PATH)
    assert result.returncode == status, result.stderr
    assert words in result.stdout + result.stderr
    assert "configuration sha256:aa" in result.stdout


def test_something_else_is_an_error(run_command: Any, tmp_path: Path) -> None:
    published = tmp_path / "published.json"
    published.write_text("{}")
    archive = write_archive(tmp_path / "rebuilt.tar", manifest("aa"))
    assert run_command(["docker/compare-builds.sh", published, archive], PATH=PATH).returncode != 0
