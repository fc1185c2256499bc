"""The image serves with the strictest options, and contains no tools for an intruder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import write_certificate
from tests.container.engines import HARDENED, Container, Engine, Options
from tests.container.http import INSIDE_PROGRAM, PROMPT, READY_TIMEOUT_S, complete

WRITABLE_BY_ALL = {"/tmp", "/var/tmp", "/run/lock", "/dev/shm", "/dev/mqueue"}
NEEDLESS_PROGRAMS = ("curl", "wget", "gcc", "cc", "g++", "make", "pip", "pip3", "poetry", "git", "sudo", "nc", "ssh")
NEEDLESS_MODULES = "pip ensurepip poetry huggingface_hub hf_xet ziglang"


@pytest.mark.parametrize("user", ["123456:0", "123456:123456"])
def test_serves_without_network_capabilities_writable_disk_or_known_user(
    engine: Engine, each_image: str, user: str
) -> None:
    """Acceptance 1: also without tmpfs. The second user is not in group 0, which is not promised but works."""
    if engine.name == "apptainer":
        pytest.skip("apptainer: it has no such options; test_serves_an_unprivileged_caller tests it")
    engine.load(each_image)
    options = Options(flags=(*HARDENED, f"--user={user}"), is_offline=True)
    with engine.running(each_image, options) as container:
        wait_for_healthcheck(container)
        assert complete_inside(container, max_tokens=4, ignore_eos=True)["usage"]["completion_tokens"] == 4
        # New grammars are first compiled in a separate process, which must be able to start, too.
        formed = complete_inside(container, max_tokens=8, guided_choice=[" yes", " no"])
        assert formed["choices"][0]["text"] in {" yes", " no"}


def test_it_serves_on_a_unix_socket_with_a_certificate(engine: Engine, image: str, scratch: Path) -> None:
    """The image's Gunicorn follows the settings, and so does its health check, which accepts only that certificate."""
    if engine.name == "apptainer":
        pytest.skip("apptainer: it has no such options")
    folder = scratch / f"certificate-{engine.name}"
    folder.mkdir()
    certificate, key = write_certificate(folder)
    for path in (folder, certificate, key):
        path.chmod(0o755)
    environment = {
        "DISTILGPT2_UDS": "/dev/shm/socket",
        "DISTILGPT2_SSL_CERTFILE": f"/certificate/{certificate.name}",
        "DISTILGPT2_SSL_KEYFILE": f"/certificate/{key.name}",
    }
    mounts = (f"--volume={folder}:/certificate:ro",)
    options = Options(flags=HARDENED, environment=environment, is_offline=True, mounts=mounts)
    with engine.running(image, options) as container:
        wait_for_healthcheck(container)
        assert (
            container.execute("distilgpt2-api", "healthcheck").stdout == "healthy: unix:/dev/shm/socket/readyz: 200\n"
        )


def complete_inside(container: Container, **fields: object) -> Any:
    """Request a completion from inside the container, because it has no network."""
    result = container.execute("python", "-c", INSIDE_PROGRAM, json.dumps({"prompt": PROMPT, **fields}))
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout)


def wait_for_healthcheck(container: Container) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while container.execute("distilgpt2-api", "healthcheck").returncode != 0:
        assert time.monotonic() < deadline, container.log()


def test_serves_an_unprivileged_caller(service: Container) -> None:
    """On Apptainer this is the caller, without home or the machine's /tmp; elsewhere the image's user."""
    assert service.execute("id", "-u").stdout.strip() not in {"", "0"}
    assert complete(service.port, max_tokens=4, ignore_eos=True)["usage"]["completion_tokens"] == 4


def test_the_user_can_change_nothing(service: Container) -> None:
    for path in ("/opt/venv", "/opt/model/config.json", "/etc/distilgpt2-api/gunicorn.conf.py", "/usr/bin"):
        assert service.execute("test", "-e", path).returncode == 0
        assert service.execute("test", "-w", path).returncode != 0, path


def test_no_file_gives_its_callers_other_rights(service: Container) -> None:
    """Acceptance 4: neither set-user-id nor set-group-id, on files or folders."""
    found = service.execute("find", "/", "-xdev", "-perm", "/6000")
    assert found.stdout == "", found.stdout


def test_only_temporary_folders_are_open_to_all(service: Container) -> None:
    """Acceptance 4."""
    found = service.execute("find", "/", "-xdev", "-type", "d", "-perm", "-0002").stdout.split()
    assert set(found) <= WRITABLE_BY_ALL
    open_files = service.execute("find", "/opt", "/usr", "/etc", "-xdev", "-type", "f", "-perm", "-0002").stdout
    assert open_files == ""


def test_has_no_program_that_a_service_never_needs(service: Container) -> None:
    """Acceptance 4."""
    found = service.execute("sh", "-c", f"for name in {' '.join(NEEDLESS_PROGRAMS)}; do command -v $name; done")
    assert found.stdout == "", found.stdout


def test_has_no_module_that_a_service_never_needs(service: Container) -> None:
    """Neither our environment nor the base's Python has them."""
    program = f'from importlib.util import find_spec; print(*filter(find_spec, "{NEEDLESS_MODULES}".split()))'
    found = service.execute("sh", "-c", f"python -c '{program}'; /usr/local/bin/python -c '{program}'")
    assert found.stdout.split() == [], found.stdout + found.stderr
    assert found.returncode == 0, found.stderr


def test_has_a_shell_for_debugging(service: Container) -> None:
    assert service.execute("sh", "-c", "echo here").stdout == "here\n"
