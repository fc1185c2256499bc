"""The GitHub workflows: pinned actions, time limits, minimal rights, and no untrusted input in shells."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WORKFLOWS = sorted((Path(__file__).parents[2] / ".github" / "workflows").glob("*.yml"))

PINNED_USE = re.compile(r"^\s*(?:- )?uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
EXPRESSION = re.compile(r"\$\{\{(.+?)\}\}")


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow_path(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


@pytest.fixture
def workflow(workflow_path: Path, read_document: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return read_document(str(workflow_path))


def _steps(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job.get("steps", [])


def test_the_workflows_are_known() -> None:
    assert {path.stem for path in WORKFLOWS} >= {
        "ci",
        "deploy-azure",
        "docs",
        "image",
        "release",
        "reproduce",
        "rescan",
    }


def test_every_action_is_pinned_to_a_commit_and_says_its_version(workflow_path: Path) -> None:
    """A tag of another repository can be moved, a commit can't; Dependabot keeps the comment up to date."""
    uses = [line for line in workflow_path.read_text(encoding="utf-8").splitlines() if re.match(r"\s*(- )?uses:", line)]
    unpinned = [line for line in uses if "uses: $/" not in line and not PINNED_USE.match(line)]
    assert uses
    assert unpinned == []


def test_one_action_has_one_version_everywhere() -> None:
    versions: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for name, version in re.findall(r"uses: ([\w./-]+)@(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_the_token_has_only_the_rights_that_a_job_names(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert isinstance(job.get("permissions"), dict), f"job {name} names no permissions"


def test_every_job_has_a_time_limit(workflow: dict[str, Any]) -> None:
    for name, job in workflow["jobs"].items():
        if "uses" not in job:
            assert 0 < job["timeout-minutes"] <= 60, name


def test_two_runs_of_one_workflow_do_not_overlap(workflow: dict[str, Any]) -> None:
    assert workflow["concurrency"]["group"]


def test_runners_are_named_by_version(workflow: dict[str, Any]) -> None:
    """`ubuntu-latest` changes without notice."""
    for job in workflow["jobs"].values():
        assert "latest" not in str(job.get("runs-on"))


def test_no_expression_reaches_a_shell(workflow: dict[str, Any]) -> None:
    """A branch name or an input inside `run:` is code; inside `env:` it is a value."""
    for step in _steps(workflow):
        assert EXPRESSION.findall(step.get("run", "")) == [], step.get("name")


def test_pipes_fail_as_a_whole(workflow: dict[str, Any]) -> None:
    assert workflow["defaults"]["run"]["shell"] == "bash"


def test_a_checkout_leaves_no_token_behind(workflow: dict[str, Any]) -> None:
    checkouts = [step for step in _steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_no_event_exposes_our_secrets_to_forks(workflow: dict[str, Any]) -> None:
    """`pull_request_target` and `workflow_run` run with secrets on a fork's changes."""
    assert not {"pull_request_target", "workflow_run"} & set(workflow["on"])


def test_every_make_target_exists(workflow: dict[str, Any], root: Path) -> None:
    makefiles = [root / "Makefile", *root.glob("*/*.mk"), *root.glob("tests/*/*.mk")]
    targets = {
        target
        for path in makefiles
        for target in re.findall(r"^([\w-]+):", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    called = {
        target
        for step in _steps(workflow)
        for target in re.findall(r"^\s*make ([\w-]+)", step.get("run", ""), re.MULTILINE)
    }
    assert called <= targets


def test_every_script_exists_and_is_executable(workflow: dict[str, Any], root: Path) -> None:
    for step in _steps(workflow):
        for script in re.findall(r"\b(?:deploy|docker)/[\w/-]+\.sh\b", step.get("run", "")):
            assert (root / script).stat().st_mode & 0o111, script


def test_ci_runs_every_supported_python(read_yaml: Any, root: Path) -> None:
    (ci,) = read_yaml(".github/workflows/ci.yml")
    promised = re.search(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (root / "pyproject.toml").read_text(encoding="utf-8")
    )
    assert promised
    low, high = map(int, promised.groups())
    assert ci["jobs"]["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(low, high)]


@pytest.fixture
def image_jobs(read_yaml: Any) -> Any:
    (image,) = read_yaml(".github/workflows/image.yml")
    return image["jobs"]


@pytest.fixture
def release_jobs(read_yaml: Any) -> Any:
    (release,) = read_yaml(".github/workflows/release.yml")
    return release["jobs"]


def test_a_release_is_tagged_only_after_every_check(image_jobs: Any, release_jobs: Any) -> None:
    """Both architectures are built natively and pushed without a tag; a job that needs all others tags them."""
    assert {entry["runner"] for entry in image_jobs["build"]["strategy"]["matrix"]["include"]} == {
        "ubuntu-24.04",
        "ubuntu-24.04-arm",
    }
    assert set(release_jobs["image"]["needs"]) == {"ci", "plan", "size"}
    assert set(image_jobs["publish"]["needs"]) == {"build"}
    assert {"run": "make image-size"} in release_jobs["size"]["steps"]
    commands = "\n".join(step.get("run", "") + step.get("uses", "") for step in image_jobs["build"]["steps"])
    order = [commands.index(gate) for gate in ("wait-until-ready.sh", "anchore/scan-action", "docker/login-action")]
    assert order == sorted(order)
    assert "--security-opt seccomp=docker/seccomp.json" in commands
    push = next(step for step in image_jobs["build"]["steps"] if step.get("id") == "push")["with"]
    assert "push-by-digest=true" in push["outputs"]
    assert push["sbom"] is True
    assert push["provenance"] == "mode=max"
    assert "tags" not in push


def test_both_images_are_released(release_jobs: Any, image_jobs: Any, root: Path) -> None:
    targets = {entry["target"] for entry in release_jobs["image"]["strategy"]["matrix"]["include"]}
    assert targets == {"runtime", "hardened"}
    dockerfile = (root / "Dockerfile").read_text(encoding="utf-8")
    assert all(f" AS {target}\n" in dockerfile for target in targets)
    builds = [
        step["with"] for step in image_jobs["build"]["steps"] if "docker/build-push-action@" in step.get("uses", "")
    ]
    assert [build["target"] for build in builds] == ["${{ inputs.target }}"] * 2


def test_only_the_reusable_workflow_can_sign(read_yaml: Any, release_jobs: Any) -> None:
    """SLSA's build level 3: no step of a caller runs beside the token that signs, and the call gets no secret."""
    call = release_jobs["image"]
    assert call["uses"] == "$/.github/workflows/image.yml"
    assert "secrets" not in call
    signing = {
        (path.stem, name)
        for path in WORKFLOWS
        for name, job in read_yaml(str(path))[0]["jobs"].items()
        if job["permissions"].get("attestations") == "write"
    }
    assert signing == {("image", "publish"), ("release", "image")}
    (image,) = read_yaml(".github/workflows/image.yml")
    assert set(image["on"]) == {"workflow_call"}
    for inputs in image["on"]["workflow_call"]["inputs"].values():
        assert inputs["required"] is True
        assert inputs["type"] == "string"
    assert set(call["with"]) == set(image["on"]["workflow_call"]["inputs"])


def test_provenance_contents_and_vulnerabilities_are_attested(image_jobs: Any, root: Path) -> None:
    attested = [step["with"] for step in image_jobs["publish"]["steps"] if "actions/attest@" in step.get("uses", "")]
    assert all(statement["push-to-registry"] is True for statement in attested)
    of_index = "${{ steps.publish.outputs.digest }}"
    assert [(statement.get("sbom-path"), statement["subject-digest"]) for statement in attested] == [
        (None, of_index),
        ("amd64.spdx.json", "${{ steps.contents.outputs.amd64 }}"),
        ("arm64.spdx.json", "${{ steps.contents.outputs.arm64 }}"),
        (None, of_index),
    ]
    assert attested[-1]["predicate-type"] == "https://openvex.dev/ns/v0.2.0"
    assert (root / attested[-1]["predicate-path"]).is_file()


def test_the_index_is_annotated(image_jobs: Any, release_jobs: Any) -> None:
    meta = next(step for step in image_jobs["publish"]["steps"] if step.get("id") == "meta")
    assert meta["env"]["DOCKER_METADATA_ANNOTATIONS_LEVELS"] == "index"
    assert meta["with"]["annotations"] == "${{ inputs.annotations }}"
    plan = next(step for step in release_jobs["plan"]["steps"] if step.get("id") == "plan")["run"]
    for name in ("title", "licenses", "version", "revision", "created", "source", "base.name", "base.digest"):
        assert f"org.opencontainers.image.{name}=" in plan


def test_our_signatures_are_checked_against_the_workflow_that_makes_them() -> None:
    for path in WORKFLOWS:
        identities = re.findall(r"/workflows/([\w-]+\.yml)@", path.read_text(encoding="utf-8").replace("uses: $/", ""))
        assert set(identities) <= {"image.yml"}, path.name


def test_a_rescan_uses_our_statements_and_rebuilds_on_a_new_base(read_yaml: Any, root: Path) -> None:
    (rescan,) = read_yaml(".github/workflows/rescan.yml")
    assert rescan["on"]["schedule"]
    scan, rebuild = rescan["jobs"]["scan"], rescan["jobs"]["rebuild"]
    scanner = next(step for step in scan["steps"] if "anchore/scan-action@" in step.get("uses", ""))["with"]
    assert (root / scanner["vex"]).is_file()
    assert scanner["severity-cutoff"] == "high"
    assert rebuild["if"] == "needs.released.outputs.base-is-new == 'true'"
    assert rebuild["permissions"] == {"actions": "write"}
    assert "workflow_dispatch" in read_yaml(".github/workflows/release.yml")[0]["on"]
    others = [name for name, job in rescan["jobs"].items() if "write" in job["permissions"].values()]
    assert others == ["rebuild"]


def test_a_release_can_be_reproduced_without_rights(read_yaml: Any) -> None:
    (reproduce,) = read_yaml(".github/workflows/reproduce.yml")
    (job,) = reproduce["jobs"].values()
    assert job["permissions"] == {"contents": "read", "packages": "read"}
    assert len(job["strategy"]["matrix"]["include"]) == 4
    build = next(step for step in job["steps"] if "docker/build-push-action@" in step.get("uses", ""))
    assert build["with"]["no-cache"] is True
    assert "rewrite-timestamp=true" in build["with"]["outputs"]
    assert build["env"]["SOURCE_DATE_EPOCH"]


def test_the_package_is_published_without_a_secret_and_only_after_every_check(read_yaml: Any) -> None:
    """By trusted publishing: the job that may prove who it is runs no code of ours, and builds nothing."""
    (release,) = read_yaml(".github/workflows/release.yml")
    jobs = release["jobs"]
    publish = jobs["publish-package"]
    assert publish["if"] == "vars.PUBLISH_PACKAGE == 'true'"
    assert set(publish["needs"]) == {"ci", "package", "start-package"}
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "package-index"
    download, upload = publish["steps"]
    assert download["uses"].startswith("actions/download-artifact@")
    assert upload["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert upload["with"]["attestations"] is True
    assert not {"password", "user"} & set(upload["with"])
    assert {"run": "make test-wheels"} in jobs["package"]["steps"]
    assert jobs["package"]["if"] == "github.event_name == 'push'", "a rebuilt image publishes no package again"


def test_the_package_is_started_where_the_job_that_compiles_it_cannot(read_yaml: Any, root: Path) -> None:
    (release,) = read_yaml(".github/workflows/release.yml")
    tags = {entry["tag"] for entry in release["jobs"]["start-package"]["strategy"]["matrix"]["include"]}
    built = set(re.findall(r'"((?:manylinux|macosx)\w+)"', (root / "wheels" / "build.py").read_text(encoding="utf-8")))
    assert built - tags == {"manylinux_2_31_x86_64"}
    assert tags < built


def test_dependabot_watches_everything_that_is_pinned(read_yaml: Any) -> None:
    (dependabot,) = read_yaml(".github/dependabot.yml")
    watched = {update["package-ecosystem"] for update in dependabot["updates"]}
    assert watched == {"github-actions", "pip", "npm", "docker", "docker-compose", "devcontainers"}
