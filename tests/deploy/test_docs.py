"""The container page matches the Dockerfile."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def _instructions(dockerfile: str) -> list[str]:
    return [
        line
        for line in dockerfile.splitlines()
        if line.strip() and (not line.startswith("#") or line.startswith("# syntax"))
    ]


def test_the_dockerfile_is_explained_line_by_line(root: Path) -> None:
    """The quoted blocks are the whole Dockerfile without its comments."""
    text = (DOCS / "container.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Our Dockerfile, line by line\n(.+?)^## ", text, re.MULTILINE | re.DOTALL)
    quoted = "".join(re.findall(r"^```dockerfile\n(.+?)^```", section, re.MULTILINE | re.DOTALL))
    assert _instructions(quoted) == _instructions((root / "Dockerfile").read_text(encoding="utf-8"))


def test_every_build_argument_has_its_row(root: Path) -> None:
    """Except the build tools' versions, which are not for users, and what the engine sets."""
    arguments = set(re.findall(r"^ARG (\w+)", (root / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE))
    text = (DOCS / "container.md").read_text(encoding="utf-8")
    table = text[text.index("| argument (") : text.index("The default build needs")]
    assert arguments - {"POETRY_VERSION", "POETRY_EXPORT_VERSION", "TARGETOS", "TARGETARCH"} == set(
        re.findall(r"`([A-Z_]+)`", table)
    ) - {"VALUE"}
