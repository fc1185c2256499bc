"""Documents match the code: architecture page, decisions, changelog fragments, CONTRIBUTING, hooks, make targets."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

FRAGMENT = re.compile(r"(?:\d+|\+[a-z0-9-]+)\.(?P<type>[a-z]+)\.md")
MAKE_TARGET = re.compile(r"\bmake ([a-z][a-z0-9-]*)")


@pytest.fixture(scope="module")
def make_targets(root: Path) -> set[str]:
    makefiles = [root / "Makefile", *root.glob("*/*.mk"), *root.glob("*/*/*.mk")]
    return {name for path in makefiles for name in re.findall(r"^([a-z0-9-]+):", path.read_text(), flags=re.MULTILINE)}


def _named_paths(text: str) -> list[str]:
    """Texts between backticks that look like a file or a folder of the project."""
    return [
        name for name in re.findall(r"`([\w./-]+)`", text) if "/" in name.strip("/") or re.search(r"\.\w+$|/$", name)
    ]


def test_every_file_on_the_architecture_page_exists(root: Path) -> None:
    text = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = [name for name in _named_paths(text) if re.search(r"\.py$|/$", name)]
    places = [root, root / "src" / "distilgpt2_api"]

    assert len(paths) > 50
    assert [path for path in paths if not any((place / path).exists() for place in places)] == []


def test_every_layer_is_in_a_table_of_layers(root: Path) -> None:
    """One table for each contract of layers, in the contracts' order."""
    text = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    (section,) = (part for part in re.split(r"^## ", text, flags=re.MULTILINE) if "\n| `core` |" in part)
    tables = [re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for table in section.split("|---|---|\n")[1:]]
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [contract["layers"] for contract in contracts if contract["type"] == "layers"]

    assert [{name for row in table for name in re.findall(r"\w+", row)} for table in tables] == [
        {name for row in rows for name in row.split(" | ")} - {"__main__"} for rows in layers
    ]


def test_the_index_of_decisions_is_complete_and_numbered_without_gaps(root: Path) -> None:
    folder = root / "docs" / "decisions"
    index = re.findall(r"^\| \[(\d{4})\]\((.+?)\) \| (.+) \|$", (folder / "README.md").read_text(), flags=re.MULTILINE)
    files = sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")

    assert [file for _, file, _ in index] == files
    assert [number for number, _, _ in index] == [f"{number:04}" for number in range(1, len(files) + 1)]
    for number, file, title in index:
        assert file.startswith(f"{number}-")
        assert (folder / file).read_text(encoding="utf-8").startswith(f"# {number}. {title}\n")


def test_every_changelog_fragment_has_a_known_type_and_a_sentence(root: Path) -> None:
    """Towncrier drops a fragment of unknown type without a warning."""
    types = {
        item["directory"] for item in tomllib.loads((root / "pyproject.toml").read_text())["tool"]["towncrier"]["type"]
    }
    for path in (root / "changelog.d").iterdir():
        if path.name == ".gitkeep":
            continue
        name = FRAGMENT.fullmatch(path.name)
        assert name, path.name
        assert name["type"] in types, path.name
        text = path.read_text(encoding="utf-8")
        assert text.strip().endswith((".", "!", "`")), path.name
        assert not text.startswith(("-", "*", "#")), f"{path.name}: towncrier adds the list mark"


def test_towncrier_builds_the_changelog_from_the_fragments(root: Path) -> None:
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "0.0.0", "--date", "2000-01-01"]

    draft = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout

    fragments = [path.read_text(encoding="utf-8").split() for path in (root / "changelog.d").glob("*.md")]
    words = " ".join(draft.split())
    assert "## 0.0.0 (2000-01-01)" in draft
    assert [text for text in fragments if " ".join(text) not in words] == []


def test_contributing_names_only_what_exists(root: Path, make_targets: set[str]) -> None:
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = [path for path in _named_paths(text) if "NUMBER" not in path and "WORD" not in path]
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("https://")]
    places = [root, root / "src" / "distilgpt2_api"]

    assert set(MAKE_TARGET.findall(text)) <= make_targets
    assert [path for path in paths if not any((place / path).exists() for place in places)] == []
    assert [link for link in links if not (root / link).exists()] == []


def test_one_target_makes_every_generated_page_and_a_hook_checks_it(hooks: list[dict[str, Any]], root: Path) -> None:
    pages = [path for path in (root / "docs").glob("*.md") if path.read_text().startswith("<!-- Generated: `")]
    (recipe,) = re.findall(r"^pages:.*\n((?:\t.+\n)+)", (root / "Makefile").read_text(), flags=re.MULTILINE)
    (hook,) = (hook for hook in hooks if hook["id"] == "pages")

    assert sorted(re.findall(r"> (\S+)", recipe)) == sorted(f"docs/{path.name}" for path in pages)
    assert [path.name for path in pages if not re.search(hook["files"], f"docs/{path.name}")] == []


def test_every_phony_target_has_a_help_text(root: Path) -> None:
    """`make help` lists the targets that have one."""
    text = (root / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (.+)$", text, flags=re.MULTILINE))

    assert {name for name in phony if not re.search(rf"^{name}:.*## \S", text, flags=re.MULTILINE)} == set()


@pytest.fixture(scope="module")
def hooks(root: Path) -> list[dict[str, Any]]:
    config = yaml.safe_load((root / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    return [hook | {"repo": repo["repo"]} for repo in config["repos"] for hook in repo["hooks"]]


def test_hooks_run_the_projects_own_tools_without_a_network(hooks: list[dict[str, Any]]) -> None:
    assert {hook["repo"] for hook in hooks} == {"local"}
    assert {hook["language"] for hook in hooks} == {"system"}


def test_every_hook_runs_an_existing_program(hooks: list[dict[str, Any]], root: Path, make_targets: set[str]) -> None:
    for hook in hooks:
        program, *arguments = hook["entry"].split()
        if program == "make":
            assert arguments[-1] in make_targets, hook["id"]
        else:
            assert program.startswith(".venv/bin/"), hook["id"]
            assert (Path(sys.executable).parent / Path(program).name).exists(), hook["id"]


def test_every_hook_matches_a_file(hooks: list[dict[str, Any]], root: Path) -> None:
    folders = (root / name for name in ("src", "tests", "docs", "changelog.d"))
    paths = [*root.glob("*"), *(path for folder in folders for path in folder.rglob("*"))]
    files = [path.relative_to(root).as_posix() for path in paths if path.is_file()]
    for hook in hooks:
        assert any(re.search(hook.get("files", ""), file) for file in files), hook["id"]
