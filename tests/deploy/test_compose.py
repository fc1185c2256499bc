"""`docker compose up`: the service with the image's strict options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def services(read_yaml: Any) -> dict[str, dict[str, Any]]:
    (compose,) = read_yaml("compose.yaml")
    found = compose["services"]
    assert isinstance(found, dict)
    return found


def test_every_service_is_hardened_and_bounded(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"][0] == "no-new-privileges:true", name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
        assert service["logging"]["options"]["max-size"], name


def test_the_service_has_our_profile_of_system_calls(services: dict[str, dict[str, Any]], root: Path) -> None:
    (profile,) = services["api"]["security_opt"][1:]
    assert (root / profile.removeprefix("seccomp:")).is_file()


def test_only_this_machine_can_connect_by_default(services: dict[str, dict[str, Any]]) -> None:
    ports = [port for service in services.values() for port in service["ports"]]
    assert all(port.startswith(("127.0.0.1:", "${ADDRESS:-127.0.0.1}:")) for port in ports)


def test_monitoring_starts_only_with_its_profile(services: dict[str, dict[str, Any]]) -> None:
    assert {name for name, service in services.items() if "profiles" not in service} == {"api"}
    assert {profile for service in services.values() for profile in service.get("profiles", [])} == {"monitoring"}


def test_the_health_check_is_ours(services: dict[str, dict[str, Any]]) -> None:
    """Compose repeats the image's health check, because Podman's builds lose it."""
    assert services["api"]["healthcheck"]["test"] == ["CMD", "distilgpt2-api", "healthcheck"]


def test_a_stop_has_time_for_the_drain(services: dict[str, dict[str, Any]]) -> None:
    grace_s = float(services["api"]["stop_grace_period"].removesuffix("s"))
    assert grace_s >= float(services["api"]["environment"]["DISTILGPT2_DRAIN_S"]) + 5


def test_every_mounted_file_is_in_the_checkout_and_read_only(services: dict[str, dict[str, Any]], root: Path) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", []) if mount.startswith("./")]
    assert mounts
    for mount in mounts:
        source, _, options = mount.split(":")
        assert (root / source).exists(), source
        assert options == "ro"


def test_third_party_images_have_a_version(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if name != "api":
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
