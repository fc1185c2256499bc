"""The stack for Docker Swarm and its proxy: the same strict options, and consistent names, ports and timeouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.settings import Settings

STACK = "deploy/swarm/stack.yaml"


@pytest.fixture(scope="module")
def stack(read_document: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return read_document(STACK)


@pytest.fixture(scope="module")
def api(stack: dict[str, Any]) -> dict[str, Any]:
    service = stack["services"]["api"]
    assert isinstance(service, dict)
    return service


@pytest.fixture(scope="module")
def proxy(root: Path) -> list[list[str]]:
    """The lines of the proxy's configuration, split into words."""
    text = (root / "deploy/swarm/haproxy.cfg").read_text(encoding="utf-8")
    return [line.split() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def test_every_service_is_hardened_and_bounded(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
        assert service["logging"]["options"]["max-size"], name


def test_every_reference_exists(stack: dict[str, Any], root: Path) -> None:
    for service in stack["services"].values():
        assert set(service["networks"]) <= set(stack["networks"])
        for kind in ("secrets", "configs"):
            assert {entry["source"] for entry in service.get(kind, [])} <= set(stack[kind])
    assert (root / STACK).with_name(stack["configs"]["proxy"]["file"].removeprefix("./")).is_file()


def test_only_the_proxy_is_reached_from_outside(stack: dict[str, Any], api: dict[str, Any]) -> None:
    """No route leads out of the service's network."""
    assert "ports" not in api
    assert api["networks"] == ["inner"]
    assert stack["networks"]["inner"]["internal"] is True
    assert {port["mode"] for port in stack["services"]["proxy"]["ports"]} == {"host"}


def test_keys_are_a_secret_that_the_service_may_read(api: dict[str, Any], root: Path) -> None:
    (secret,) = api["secrets"]
    assert api["environment"]["DISTILGPT2_API_KEYS_FILE"] == f"/run/secrets/{secret['target']}"
    assert f"USER {secret['uid']}:{secret['gid']}" in (root / "Dockerfile").read_text(encoding="utf-8")


def test_a_stop_has_time_for_the_drain(api: dict[str, Any]) -> None:
    grace_s = float(api["stop_grace_period"].removesuffix("s"))
    assert grace_s >= float(api["environment"]["DISTILGPT2_DRAIN_S"]) + 5


def test_an_old_replica_stops_only_when_a_new_one_is_healthy(api: dict[str, Any]) -> None:
    """A failed update is rolled back automatically, in the same way."""
    assert api["healthcheck"]["test"] == ["CMD", "distilgpt2-api", "healthcheck"]
    update = api["deploy"]["update_config"]
    assert (update["order"], update["failure_action"]) == ("start-first", "rollback")
    assert api["deploy"]["rollback_config"]["order"] == "start-first"


def test_the_proxy_resolves_every_task_by_itself(
    stack: dict[str, Any], api: dict[str, Any], proxy: list[list[str]]
) -> None:
    """There are enough server slots, and the tasks have their own addresses instead of a common one."""
    assert api["deploy"]["endpoint_mode"] == "dnsrr"
    (template,) = (line for line in proxy if line[0] == "server-template")
    assert template[3].split(":")[0].removeprefix("tasks.") in stack["services"]
    assert int(template[2]) >= 10 * int(api["deploy"]["replicas"].removeprefix("${REPLICAS:-").removesuffix("}"))
    (port,) = stack["services"]["proxy"]["ports"]
    assert ["bind", f":{port['target']}"] in proxy


def test_the_proxy_retries_only_before_the_first_byte(proxy: list[list[str]]) -> None:
    assert ["retry-on", "conn-failure", "empty-response", "503"] in proxy
    assert ["option", "http-buffer-request"] in proxy
    assert ["option", "httpchk", "GET", "/readyz"] in proxy


def test_the_proxy_s_timeouts_are_at_least_the_service_s(proxy: list[list[str]]) -> None:
    timeout_s = Settings.model_fields["timeout_s"].default
    for side in ("client", "server"):
        (line,) = (line for line in proxy if line[:2] == ["timeout", side])
        assert float(line[2].removesuffix("s")) >= timeout_s


def test_third_party_images_have_a_version(stack: dict[str, Any]) -> None:
    assert stack["services"]["proxy"]["image"].removesuffix("}").rpartition(":")[2].count(".") == 2
