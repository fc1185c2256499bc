"""The systemd unit: the same strict options, as Podman spells them."""

from __future__ import annotations

import pytest
from tests.deploy.conftest import ReadUnit, Unit


@pytest.fixture(scope="module")
def unit(read_unit: ReadUnit) -> Unit:
    return read_unit("deploy/quadlet/distilgpt2-api.container")


def test_sections_are_those_of_quadlet_and_systemd(unit: Unit) -> None:
    assert {name.split(".")[0] for name in unit} == {"Unit", "Container", "Service", "Install"}


def test_the_container_is_hardened_and_bounded(unit: Unit) -> None:
    assert unit["Container.ReadOnly"] == ["true"]
    assert unit["Container.DropCapability"] == ["all"]
    assert unit["Container.NoNewPrivileges"] == ["true"]
    assert unit["Container.PidsLimit"] == ["128"]
    arguments = " ".join(unit["Container.PodmanArgs"])
    assert "--cpus=" in arguments
    assert "--memory=" in arguments


def test_only_this_machine_can_connect_by_default(unit: Unit) -> None:
    assert unit["Container.PublishPort"] == ["127.0.0.1:8000:8000"]


def test_an_unhealthy_container_is_replaced(unit: Unit) -> None:
    """An OCI image has no health check."""
    assert unit["Container.HealthCmd"] == ["distilgpt2-api healthcheck"]
    assert unit["Container.HealthOnFailure"] == ["kill"]
    assert unit["Service.Restart"] == ["always"]


def test_drain_then_podman_then_systemd(unit: Unit) -> None:
    """Each timeout is longer than the one inside it."""
    environment = dict(entry.split("=", 1) for entry in unit["Container.Environment"])
    drain_s = float(environment["DISTILGPT2_DRAIN_S"])
    (stop_timeout,) = [value for value in unit["Container.PodmanArgs"] if value.startswith("--stop-timeout=")]
    stop_s = float(stop_timeout.partition("=")[2])
    assert drain_s + 5 <= stop_s
    assert stop_s + 5 <= float(unit["Service.TimeoutStopSec"][0])
