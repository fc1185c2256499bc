"""The image without a shell has no program but Python, and all that Python loads."""

from __future__ import annotations

import re
import stat
import tarfile
from collections.abc import Iterator
from pathlib import PurePath

import pytest
from tests.container.engines import Docker, exported_root

MANAGERS = {"sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "perl", "pip", "openssl", "ldconfig"}


@pytest.fixture(scope="module")
def files(hardened_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tarfile.TarInfo]]:
    with exported_root(hardened_image, tmp_path_factory.mktemp("hardened")) as archive:
        yield archive.getmembers()


def test_python_is_the_only_program_of_the_system(files: list[tarfile.TarInfo]) -> None:
    """Shared libraries and some modules are executable files, too; .dockerenv, which the engine adds, is empty."""
    programs = {
        PurePath(member.name).name
        for member in files
        if member.isfile()
        and member.mode & stat.S_IXUSR
        and not member.name.startswith("opt/venv/")
        and not re.search(r"\.(py|so)($|\.)", member.name)
        and member.size
    }
    assert {name for name in programs if not name.startswith("python3.")} == set()
    assert programs


def test_there_is_no_shell_and_no_package_manager(files: list[tarfile.TarInfo]) -> None:
    descriptions = ("usr/share/doc/", "var/lib/dpkg/")
    names = {PurePath(file.name).name for file in files if not file.isdir() and not file.name.startswith(descriptions)}
    assert names & MANAGERS == set()


def test_a_command_of_the_shell_fails(docker: Docker, hardened_image: str) -> None:
    result = docker.run(hardened_image, "sh", "-c", "echo here")
    assert result.returncode != 0
    assert "executable file not found" in result.stderr


def test_every_library_and_every_module_of_ours_loads(docker: Docker, hardened_image: str) -> None:
    program = """
import ctypes, pathlib, sysconfig
import distilgpt2_api
libraries = [*pathlib.Path("/opt/venv").rglob("*.so*"), *pathlib.Path(sysconfig.get_path("stdlib")).rglob("*.so")]
for path in libraries:
    ctypes.CDLL(str(path))
print(len(libraries) > 20)
"""
    result = docker.run(hardened_image, "python", "-c", program)
    assert result.stdout == "True\n", result.stdout + result.stderr


def test_certificates_time_zones_and_names_are_there(docker: Docker, hardened_image: str) -> None:
    program = """
import pwd, socket, ssl, zoneinfo
print(len(ssl.create_default_context().get_ca_certs()) > 100, zoneinfo.ZoneInfo("Europe/Berlin").key,
    pwd.getpwuid(0).pw_name, socket.gethostbyname("localhost"))
"""
    result = docker.run(hardened_image, "python", "-c", program)
    assert result.stdout.split() == ["True", "Europe/Berlin", "root", "127.0.0.1"], result.stderr


def test_scanners_find_the_same_version_of_a_package_in_both_images(
    docker: Docker, image: str, hardened_image: str
) -> None:
    program = "import pathlib; print(pathlib.Path('/var/lib/dpkg/status.d/libc6').read_text())"
    described = docker.run(hardened_image, "python", "-c", program).stdout
    version = docker.run(image, "dpkg-query", "--show", "--showformat", "${Version}", "libc6").stdout
    assert version
    assert f"\nVersion: {version}\n" in described
    licence = docker.run(hardened_image, "python", "-c", "print(open('/usr/share/doc/libc6/copyright').read())").stdout
    assert "GNU" in licence


def test_it_is_healthy(docker: Docker, hardened_image: str) -> None:
    """The health check of the image runs without a shell."""
    with docker.running(hardened_image) as container:
        container.wait_until_ready()
        assert container.execute("distilgpt2-api", "healthcheck").returncode == 0
