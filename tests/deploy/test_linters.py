"""Third-party linters for these formats find nothing. None of them uses the network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "deploy").rglob("*.sh"))
BIN = Path(sys.executable).parent


def _assert_clean(result: Any) -> None:
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("github-workflows", ".github/workflows/*.yml"),
        ("dependabot", ".github/dependabot.yml"),
        ("compose-spec", "compose.yaml"),
        ("compose-spec", "deploy/compose/*.yaml"),
        ("compose-spec", "deploy/swarm/stack.yaml"),
    ],
)
def test_published_schema(schema: str, pattern: str, run_command: Any) -> None:
    files = sorted(ROOT.glob(pattern))
    assert files
    _assert_clean(
        run_command([BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files], HOME="/nonexistent")
    )


def test_zizmor_finds_no_weakness_in_the_workflows(run_command: Any) -> None:
    _assert_clean(run_command([BIN / "zizmor", "--offline", "--no-progress", ".github"], HOME="/nonexistent"))


def test_shellcheck_finds_nothing_in_our_scripts(run_command: Any) -> None:
    assert SCRIPTS
    _assert_clean(run_command([BIN / "shellcheck", "--enable=all", "--exclude=SC2250,SC2310,SC2312", *SCRIPTS]))


def test_shellcheck_finds_nothing_in_the_steps_of_the_workflows(
    read_yaml: Any, run_command: Any, tmp_path: Path
) -> None:
    scripts = []
    for workflow in sorted(ROOT.glob(".github/workflows/*.yml")):
        for job_name, job in read_yaml(str(workflow))[0]["jobs"].items():
            for index, step in enumerate(job.get("steps", [])):
                if "run" in step:
                    scripts.append(tmp_path / f"{workflow.stem}-{job_name}-{index}.sh")
                    scripts[-1].write_text(f"#!/bin/bash\nset -eo pipefail\n{step['run']}\n", encoding="utf-8")
    assert scripts
    # SC2154: a step's `env:` assigns variables that shellcheck can't see.
    _assert_clean(run_command([BIN / "shellcheck", "--exclude=SC2154", *scripts]))
