"""The rules of hadolint, checked by hadolint; the rules of dockle, which is in no package, one by one.

https://github.com/goodwithtech/dockle/blob/master/CHECKPOINT.md
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.container.builds import ROOT
from tests.container.engines import call, exported_root

SCRIPTS = sorted((ROOT / "docker").glob("*.sh"))


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=ROOT / ".tools" / "hadolint" / "bin") or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint: not installed; `make test-container` installs it")
    result = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_shellcheck_finds_nothing() -> None:
    shellcheck = shutil.which("shellcheck", path=Path(sys.executable).parent) or shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck: not installed; `make test-container` installs it")
    result = subprocess.run([shellcheck, *SCRIPTS], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def config(each_image: str) -> Any:
    return json.loads(call(["docker", "image", "inspect", each_image]).stdout)[0]["Config"]


@pytest.fixture(scope="module")
def history(each_image: str) -> list[str]:
    return call(["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", each_image]).stdout.splitlines()


@pytest.fixture(scope="module")
def root(each_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tarfile.TarFile]:
    """The image's files."""
    with exported_root(each_image, tmp_path_factory.mktemp("root")) as archive:
        yield archive


def read(root: tarfile.TarFile, name: str) -> list[list[str]]:
    if name not in root.getnames():
        return []
    file = root.extractfile(name)
    assert file is not None
    return [line.split(":") for line in file.read().decode().splitlines() if line]


def test_cis_di_0001_a_user_is_created(config: Any) -> None:
    assert config["User"].partition(":")[0] not in {"", "0", "root"}


def test_cis_di_0006_there_is_a_health_check(config: Any) -> None:
    assert config["Healthcheck"]["Test"]


def test_cis_di_0007_no_update_stands_alone(history: list[str]) -> None:
    assert not [line for line in history if "apt-get update" in line and "install" not in line]


def test_cis_di_0008_no_set_user_or_group_id(root: tarfile.TarFile) -> None:
    assert not [member.name for member in root if member.mode & 0o6000]


def test_cis_di_0009_copy_and_not_add(history: list[str]) -> None:
    assert not [line for line in history if re.match(r"(/bin/sh -c #\(nop\) )?ADD ", line)]


def test_cis_di_0010_no_secrets(config: Any, root: tarfile.TarFile) -> None:
    """Neither in names of variables nor as files that usually contain secrets."""
    assert not [line for line in config["Env"] if re.search(r"passw|secret|token|_key|credential", line, re.IGNORECASE)]
    secret_names = {".netrc", ".npmrc", ".env", "id_rsa", "id_ed25519", "credentials", ".git-credentials"}
    assert not [member.name for member in root if Path(member.name).name in secret_names]


def test_dkl_di_0001_no_sudo(history: list[str]) -> None:
    assert not [line for line in history if re.search(r"\bsudo\b", line)]


def test_dkl_di_0002_no_sensitive_folder_is_mounted(config: Any) -> None:
    assert not config["Volumes"]


def test_dkl_di_0003_no_upgrade_of_the_distribution(history: list[str]) -> None:
    assert not [line for line in history if "dist-upgrade" in line]


def test_dkl_di_0005_no_package_lists(root: tarfile.TarFile) -> None:
    lists = "var/lib/apt/lists/"
    assert not [member.name for member in root if member.size and member.name.startswith(lists)]


def test_dkl_di_0006_no_latest(config: Any) -> None:
    assert ":latest" not in (ROOT / "Dockerfile").read_text()


def test_dkl_li_0001_no_empty_password(root: tarfile.TarFile) -> None:
    assert not [fields[0] for fields in read(root, "etc/shadow") if fields[1] == ""]


def test_dkl_li_0002_users_and_groups_are_different(root: tarfile.TarFile) -> None:
    for name in ("etc/passwd", "etc/group"):
        entries = read(root, name)
        assert len({fields[0] for fields in entries}) == len(entries) > 0
        assert len({fields[2] for fields in entries}) == len(entries)


def test_dkl_li_0003_only_what_is_needed(root: tarfile.TarFile) -> None:
    """No files of the build, of version control or of caches."""
    needless = {"Dockerfile", "docker-compose.yml", "compose.yaml", ".git", ".vscode", ".cache", "poetry.lock", "tests"}
    assert not [member.name for member in root if Path(member.name).name in needless]


def test_every_package_of_a_vulnerability_statement_is_in_the_image(image: str) -> None:
    """A statement about a package that the image no longer has would be dead."""
    document = json.loads((ROOT / "security" / "distilgpt2-api.openvex.json").read_text(encoding="utf-8"))
    named = {
        part["@id"].removeprefix("pkg:deb/debian/")
        for statement in document["statements"]
        for product in statement["products"]
        for part in product["subcomponents"]
    }
    query = ["docker", "run", "--rm", "--network=none", image, "dpkg-query", "--show", "--showformat", "${Package}\\n"]
    assert named <= set(call(query).stdout.split())
