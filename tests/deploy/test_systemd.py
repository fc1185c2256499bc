"""The systemd unit without a container: hardened, bounded, and with timeouts that fit the service's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.deploy.conftest import ReadUnit, Unit

from distilgpt2_api.cli.listening import BACKLOG
from distilgpt2_api.core.exit_status import EXIT_MODEL, EXIT_SETTINGS

FILE = "deploy/systemd/distilgpt2-api.service"
SOCKET = "deploy/systemd/distilgpt2-api.socket"
MAX_EXPOSURE = 15
"""In tenths, of 100: `systemd-analyze security` calls this OK."""
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")


@pytest.fixture(scope="module")
def unit(read_unit: ReadUnit) -> Unit:
    return read_unit(FILE)


@pytest.fixture(scope="module")
def socket_unit(read_unit: ReadUnit) -> Unit:
    return read_unit(SOCKET)


@pytest.fixture
def local_unit(root: Path, tmp_path: Path) -> Path:
    """The unit with this environment's interpreter in place of the program, which systemd wants to exist."""
    text = (root / FILE).read_text(encoding="utf-8")
    path = tmp_path / "distilgpt2-api.service"
    path.write_text(text.replace("/opt/distilgpt2-api/.venv/bin/distilgpt2-api", sys.executable))
    return path


@needs_systemd
def test_systemd_knows_every_directive(local_unit: Path) -> None:
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(local_unit)], check=False, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")


@needs_systemd
def test_systemd_knows_every_directive_of_the_socket(local_unit: Path, root: Path) -> None:
    """It looks for the service of the same name beside it."""
    path = local_unit.with_suffix(".socket")
    path.write_text((root / SOCKET).read_text(encoding="utf-8"))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], check=False, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_the_socket_is_one_that_the_service_accepts(socket_unit: Unit, unit: Unit) -> None:
    """A stream for the whole service, not a connection for each process, and no more people than a proxy's group."""
    assert "Socket.Accept" not in socket_unit
    assert socket_unit["Socket.ListenStream"] == ["/run/distilgpt2-api.sock"]
    assert socket_unit["Socket.SocketMode"] == ["0660"]
    assert socket_unit["Socket.Backlog"] == [str(BACKLOG)]
    assert "AF_UNIX" in unit["Service.RestrictAddressFamilies"][0].split()


@needs_systemd
def test_systemd_finds_little_exposure(local_unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", str(local_unit)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_service_can_change_nothing_but_its_own_folders(unit: Unit) -> None:
    assert (
        unit["Service.User"] == unit["Service.StateDirectory"] == unit["Service.CacheDirectory"] == ["distilgpt2-api"]
    )
    assert unit["Service.ProtectSystem"] == ["strict"]
    assert unit["Service.ProtectHome"] == unit["Service.NoNewPrivileges"] == ["yes"]
    assert unit["Service.CapabilityBoundingSet"] == [""]
    for limit in ("CPUQuota", "MemoryMax", "TasksMax", "LimitNOFILE"):
        assert f"Service.{limit}" in unit


def test_only_this_machine_can_connect_by_default(unit: Unit) -> None:
    assert "DISTILGPT2_HOST=127.0.0.1" in unit["Service.Environment"]


def test_the_service_drains_before_systemd_kills_it(unit: Unit) -> None:
    """The signal goes to the master alone, which ends its worker in time."""
    environment = dict(entry.split("=", 1) for entry in unit["Service.Environment"])
    assert unit["Service.KillMode"] == ["mixed"]
    assert float(environment["DISTILGPT2_DRAIN_S"]) + 5 <= float(unit["Service.TimeoutStopSec"][0])


def test_a_start_that_can_not_succeed_is_not_repeated(unit: Unit) -> None:
    assert unit["Service.Restart"] == ["on-failure"]
    assert unit["Service.RestartPreventExitStatus"] == [f"{EXIT_MODEL} {EXIT_SETTINGS}"]
