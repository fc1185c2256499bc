"""The systemd unit: the same strict options, as Podman spells them."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def unit(root: Path) -> dict[str, list[str]]:
    """The values of each `Section.Key`, in order: keys repeat in a unit file."""
    entries: dict[str, list[str]] = {}
    section = ""
    for line in (root / "deploy/quadlet/distilgpt2-api.container").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, value = line.split("=", 1)
            entries.setdefault(f"{section}.{key}", []).append(value)
    return entries


def test_sections_are_those_of_quadlet_and_systemd(unit: dict[str, list[str]]) -> None:
    assert {name.split(".")[0] for name in unit} == {"Unit", "Container", "Service", "Install"}


def test_the_container_is_hardened_and_bounded(unit: dict[str, list[str]]) -> None:
    assert unit["Container.ReadOnly"] == ["true"]
    assert unit["Container.DropCapability"] == ["all"]
    assert unit["Container.NoNewPrivileges"] == ["true"]
    assert unit["Container.PidsLimit"] == ["128"]
    arguments = " ".join(unit["Container.PodmanArgs"])
    assert "--cpus=" in arguments
    assert "--memory=" in arguments


def test_only_this_machine_can_connect_by_default(unit: dict[str, list[str]]) -> None:
    assert unit["Container.PublishPort"] == ["127.0.0.1:8000:8000"]


def test_an_unhealthy_container_is_replaced(unit: dict[str, list[str]]) -> None:
    """An OCI image has no health check."""
    assert unit["Container.HealthCmd"] == ["distilgpt2-api healthcheck"]
    assert unit["Container.HealthOnFailure"] == ["kill"]
    assert unit["Service.Restart"] == ["always"]


def test_drain_then_podman_then_systemd(unit: dict[str, list[str]]) -> None:
    """Each timeout is longer than the one inside it."""
    environment = dict(entry.split("=", 1) for entry in unit["Container.Environment"])
    drain_s = float(environment["DISTILGPT2_DRAIN_S"])
    (stop_timeout,) = [value for value in unit["Container.PodmanArgs"] if value.startswith("--stop-timeout=")]
    stop_s = float(stop_timeout.partition("=")[2])
    assert drain_s + 5 <= stop_s
    assert stop_s + 5 <= float(unit["Service.TimeoutStopSec"][0])
