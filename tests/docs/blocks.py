"""The fenced blocks of the documentation: each is run by a test or marked with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAVIGATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
READING_ORDER = [
    ROOT / "README.md",
    *(ROOT / "docs" / name for name in re.findall(r": ([\w/.-]+\.md)$", NAVIGATION, re.MULTILINE)),
]
"""The README, then the pages as the site lists them."""
ACTIVATION = "source .venv/bin/activate"
"""The one way in which commands are typed: in a terminal where this was typed once."""
SERVING = re.compile(
    r"(?:[A-Z0-9_]+=\S+ )*(?:distilgpt2-api serve|make run|gunicorn|uvicorn|serve run|docker compose up"
    r"|(?:docker|podman) run .*-p |kubectl .*port-forward|apptainer run )\b.*"
)
"""A command that serves until Ctrl+C."""
COMMAND_LANGUAGES = frozenset({"sh", "bash", "console", "python", "js"})

FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+?) -->\n)?"
    r"(?P<indent> *)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    page: Path
    line: int
    """Line of the opening fence."""
    language: str
    text: str
    reason: str | None
    """The marker's reason why no test runs it; None without a marker."""

    @property
    def is_serving(self) -> bool:
        """Whether its last command serves, so that the terminal takes no other."""
        return self.language == "sh" and SERVING.fullmatch(self.commands[-1]) is not None

    @property
    def commands(self) -> list[str]:
        """Its lines; a command that a backslash continues is one."""
        return self.text.replace("\\\n", "").splitlines()

    @property
    def name(self) -> str:
        return f"{page_name(self.page)}:{self.line}"


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def command_blocks(page: Path) -> Iterator[Block]:
    """The page's blocks with commands or programs, in order."""
    text = page.read_text(encoding="utf-8")
    for fence in FENCE.finditer(text):
        if fence["language"] in COMMAND_LANGUAGES:
            yield Block(
                page=page,
                line=text.count("\n", 0, fence.start("language")) + 1,
                language=fence["language"],
                text=fence["text"],
                reason=fence["reason"],
            )
