"""The pages about containers and deployment say what the files say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "container.md", DOCS / "security.md", *sorted((DOCS / "deploy").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(params=PAGES, ids=lambda path: path.stem)
def page(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub and MkDocs make of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _instructions(dockerfile: str) -> list[str]:
    return [
        line
        for line in dockerfile.splitlines()
        if line.strip() and (not line.startswith("#") or line.startswith("# syntax"))
    ]


def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_every_script_and_folder_in_a_command_exists(page: Path, root: Path) -> None:
    for path in re.findall(r"(?<![\w/.])deploy/[\w./-]*\w", page.read_text(encoding="utf-8")):
        assert (root / path).exists() or (page.parent / path).exists(), path


def test_every_make_target_exists(page: Path, root: Path) -> None:
    makefiles = "\n".join(path.read_text(encoding="utf-8") for path in [root / "Makefile", *root.glob("docker/*.mk")])
    for target in re.findall(r"`make ([\w-]+)", page.read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefiles, re.MULTILINE), target


def test_the_dockerfile_is_explained_line_by_line(root: Path) -> None:
    """Nothing is missing, nothing is out of date: the quoted blocks are the file, less its comments."""
    text = (DOCS / "container.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Our Dockerfile, line by line\n(.+?)^## ", text, re.MULTILINE | re.DOTALL)
    quoted = "".join(re.findall(r"^```dockerfile\n(.+?)^```", section, re.MULTILINE | re.DOTALL))
    assert _instructions(quoted) == _instructions((root / "Dockerfile").read_text(encoding="utf-8"))


def test_every_build_argument_has_its_row(root: Path) -> None:
    """Or is one of the tools' versions, which nobody sets."""
    arguments = set(re.findall(r"^ARG (\w+)", (root / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE))
    text = (DOCS / "container.md").read_text(encoding="utf-8")
    table = text[text.index("| argument (") : text.index("The default build asks no hub")]
    assert arguments - {"POETRY_VERSION", "POETRY_EXPORT_VERSION"} == set(re.findall(r"`([A-Z_]+)`", table)) - {"VALUE"}
