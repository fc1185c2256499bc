"""Deployment to Azure: the commands, errors, and the rollback.

Scripts that record their calls replace `az` and `curl`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from pycep import BicepParser

FOLDER = "deploy/azure"
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
TAGGED = "ghcr.io/owner/distilgpt2-api:1.2.3"
NEW = "ghcr.io/owner/distilgpt2-api@sha256:" + "a" * 64
OLD = "DOCKER|ghcr.io/owner/distilgpt2-api@sha256:" + "b" * 64

Script = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def bicep(root: Path) -> dict[str, Any]:
    parsed = BicepParser().parse(text=(root / FOLDER / "main.bicep").read_text(encoding="utf-8"))
    return dict(parsed)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A folder with an `az` that records calls and the web app's image, and a `curl` that answers for that image."""
    (tmp_path / "image").write_text(OLD, encoding="utf-8")
    (tmp_path / "az").write_text(
        f"""#!/bin/bash
echo "$*" >>{tmp_path}/calls
case "$*" in
    "webapp show "*) echo app.azurewebsites.net ;;
    "webapp config show "*) cat {tmp_path}/image ;;
    "webapp config set "*) while [[ $1 != --linux-fx-version ]]; do shift; done && echo "$2" >{tmp_path}/image ;;
esac
""",
        encoding="utf-8",
    )
    (tmp_path / "curl").write_text(
        f"""#!/bin/bash
grep -q "$(cat {tmp_path}/healthy)" {tmp_path}/image || exit 22
[[ "$*" != */version ]] || sed 's/.*@/{{"version": "/; s/$/"}}/' {tmp_path}/image
""",
        encoding="utf-8",
    )
    (tmp_path / "healthy").write_text(".", encoding="utf-8")
    for name in ("az", "curl"):
        (tmp_path / name).chmod(0o755)
    return tmp_path


@pytest.fixture
def script(stage: Path, root: Path, run_command: Any) -> Script:
    """`script("deploy.sh", "--name", "app")` with that `az` and `curl`, without waiting times."""

    def run(name: str, *arguments: str, **environment: str) -> CompletedProcess[str]:
        result = run_command(
            [root / FOLDER / name, *arguments], PATH=f"{stage}:{SYSTEM_PATH}", POLL_INTERVAL_S="0.01", **environment
        )
        assert isinstance(result, CompletedProcess)
        return result

    return run


def _calls(stage: Path) -> list[str]:
    path = stage / "calls"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def test_bicep_describes_plan_app_and_settings(bicep: dict[str, Any]) -> None:
    kinds = {resource["type"] for resource in bicep["resources"].values()}
    assert kinds == {
        "Microsoft.Web/serverfarms",
        "Microsoft.Web/sites",
        "Microsoft.Web/sites/basicPublishingCredentialsPolicies",
        "Microsoft.Web/sites/config",
    }


def test_bicep_has_every_setting_that_the_platform_needs(root: Path) -> None:
    text = (root / FOLDER / "main.bicep").read_text(encoding="utf-8")
    for setting in (
        "WEBSITES_PORT: port",
        "var port = '8000'",
        "WEBSITE_WARMUP_PATH: '/readyz'",
        "WEBSITE_WARMUP_STATUSES: '200'",
        "WEBSITES_CONTAINER_START_TIME_LIMIT: '230'",
        "WEBSITES_CONTAINER_STOP_TIME_LIMIT: string(drainSeconds + 10)",
        "healthCheckPath: '/readyz'",
        "alwaysOn: true",
        "httpsOnly: true",
        "minTlsVersion: '1.2'",
        "ftpsState: 'Disabled'",
        "type: 'SystemAssigned'",
        "param sku string = 'B2'",
    ):
        assert setting in text


def test_the_longest_drain_fits_into_azure_s_longest_stop(bicep: dict[str, Any]) -> None:
    """App Service waits at most 120 s, and the script adds 10 s to the drain."""
    limits = {entry["type"]: entry["argument"] for entry in bicep["parameters"]["drainSeconds"]["decorators"]}
    assert limits["max_value"] + 10 <= 120


def test_script_and_bicep_have_the_same_limits(bicep: dict[str, Any], root: Path) -> None:
    text = (root / FOLDER / "deploy.sh").read_text(encoding="utf-8")
    for option, parameter in (("--instances", "numInstances"), ("--drain-s", "drainSeconds")):
        limits = {entry["type"]: entry["argument"] for entry in bicep["parameters"][parameter]["decorators"]}
        assert re.search(rf'check_number {option} "\$\w+" {limits["min_value"]} {limits["max_value"]}\n', text)
    sizes = next(entry["argument"] for entry in bicep["parameters"]["sku"]["decorators"] if entry["type"] == "allowed")
    assert f"^({'|'.join(sizes)})$" in text


def test_a_dry_run_prints_every_command_and_runs_none(script: Script, stage: Path) -> None:
    result = script("deploy.sh", "--name", "my-app", "--image", TAGGED, "--dry-run")
    assert result.returncode == 0
    assert [line.split(" --")[0] for line in result.stdout.splitlines()[:2]] == [
        "+ az group create",
        "+ az deployment group create",
    ]
    assert f"image={TAGGED}" in result.stdout
    assert "wait-until-ready.sh https://my-app.azurewebsites.net" in result.stdout
    assert _calls(stage) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", TAGGED], "--name is missing"),
        (["--name", "my_app", "--image", TAGGED], "--name must be 2 to 60 letters"),
        (["--name", "app"], "--image is missing"),
        (["--name", "app", "--image", "distilgpt2-api"], "--image must be registry/owner/image:tag"),
        (["--name", "app", "--image", "ghcr.io/Owner/image:1"], "in lower case"),
        (["--name", "app", "--image", TAGGED, "--sku", "F1"], "--sku must be B1, B2"),
        (["--name", "app", "--image", TAGGED, "--instances", "0"], "--instances must be a whole number from 1 to 10"),
        (["--name", "app", "--image", TAGGED, "--drain-s", "1e2"], "--drain-s must be a whole number from 1 to 110"),
        (["--name", "app", "--image", TAGGED, "--location", "West Europe"], "--location must be a region's short name"),
        (["--name", "app", "--image", TAGGED, "--registry-username", "me"], "$REGISTRY_PASSWORD"),
        (["--name", "app", "--image", TAGGED, "--dry-run", "--what-if"], "exclude each other"),
        (["--name"], "--name needs a value"),
        (["--cheap"], "unknown option '--cheap'"),
    ],
)
def test_an_invalid_option_is_a_one_line_error(arguments: list[str], message: str, script: Script, stage: Path) -> None:
    result = script("deploy.sh", *arguments)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert _calls(stage) == []


def test_a_registry_s_password_appears_in_no_command_line(script: Script, stage: Path) -> None:
    """It reaches Azure in a file, which is deleted afterwards."""
    result = script(
        "deploy.sh", "--name", "app", "--image", TAGGED, "--registry-username", "me",
        REGISTRY_PASSWORD='se"cret', TMPDIR=str(stage),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "registryUsername=me" in "\n".join(_calls(stage))
    assert "cret" not in "\n".join(_calls(stage)) + result.stdout
    assert not list(stage.glob("tmp.*"))


def test_api_keys_appear_in_no_command_line(script: Script, stage: Path) -> None:
    """They reach Azure in a file, which is deleted afterwards, with the password or alone."""
    az = stage / "az"
    az.write_text(
        az.read_text(encoding="utf-8") + f'for one; do [[ $one != @* ]] || cat "${{one#@}}" >>{stage}/secrets; done\n'
    )
    keys = r'alice:a\long"secret-of-hers,bob:0123456789abcdef'
    result = script("deploy.sh", "--name", "app", "--image", TAGGED, API_KEYS=keys, TMPDIR=str(stage))
    assert result.returncode == 0, result.stderr
    sent = json.loads((stage / "secrets").read_text(encoding="utf-8"))
    assert sent == {
        "registryPassword": {"value": ""},
        "apiKeys": {"value": 'alice:a\\long"secret-of-hers,bob:0123456789abcdef'},
    }
    assert "alice" not in "\n".join(_calls(stage)) + result.stdout + result.stderr
    assert not list(stage.glob("tmp.*"))


@pytest.mark.parametrize(
    "keys", ["alice:short", "alice:0123456789abcdef,bob:", "0123456789abcde", "alice:" + 257 * "a"]
)
def test_a_key_that_the_service_would_refuse_ends_the_script_before_anything_is_created(
    keys: str, script: Script, stage: Path
) -> None:
    """Without the key in the message."""
    result = script("deploy.sh", "--name", "app", "--image", TAGGED, "--dry-run", API_KEYS=keys)
    assert (result.returncode, result.stderr.count("\n"), _calls(stage)) == (2, 1, [])
    assert "each of $API_KEYS must be NAME:KEY with a key of 16 to 256 characters" in result.stderr
    assert keys not in result.stderr


def test_what_if_changes_nothing(script: Script, stage: Path) -> None:
    assert script("deploy.sh", "--name", "app", "--image", TAGGED, "--what-if").returncode == 0
    assert [call for call in _calls(stage) if " create " in call] == []


def test_a_roll_out_sets_the_new_image(script: Script, stage: Path) -> None:
    result = script(
        "roll-out.sh", "--resource-group", "group", "--name", "app", "--image", NEW, "--version-part", "sha256:aaa"
    )
    assert result.returncode == 0, result.stderr
    assert (stage / "image").read_text(encoding="utf-8").strip() == f"DOCKER|{NEW}"


def test_a_roll_out_that_does_not_become_ready_is_rolled_back(script: Script, stage: Path) -> None:
    """The exit code is 1, and the previous image runs again."""
    (stage / "healthy").write_text("sha256:bbb", encoding="utf-8")
    result = script(
        "roll-out.sh", "--resource-group", "group", "--name", "app", "--image", NEW, "--ready-timeout-s", "1"
    )
    assert result.returncode == 1
    assert "did not become ready" in result.stderr
    assert (stage / "image").read_text(encoding="utf-8").strip() == OLD


def test_the_old_container_s_answer_does_not_count(script: Script, stage: Path) -> None:
    """While the new container starts, the old one is ready: /version distinguishes them."""
    result = script(
        "roll-out.sh", "--resource-group", "group", "--name", "app", "--image", NEW,
        "--version-part", "sha256:ccc", "--ready-timeout-s", "1",
    )  # fmt: skip
    assert result.returncode == 1
    assert (stage / "image").read_text(encoding="utf-8").strip() == OLD


def test_a_roll_out_accepts_a_digest_and_no_tag(script: Script, stage: Path) -> None:
    result = script("roll-out.sh", "--resource-group", "group", "--name", "app", "--image", TAGGED)
    assert result.returncode == 2
    assert "@sha256:" in result.stderr
    assert _calls(stage) == []
