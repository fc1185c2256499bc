"""Plain English: modules are named for their content, and texts use none of the avoided words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "misc", "data", "base"}
"""Module names that say nothing about the content."""

AVOIDED = {
    "whoever": "the client, the caller, the operator",
    "whomever": "the client, the caller, the operator",
    "whom": "a subject and a verb",
    "nobody": "no client, no caller, nothing",
    "somebody": "a client, a caller",
    "everybody": "all clients, every caller",
    "anybody": "any client, any caller, anyone",
    "anew": "again",
    "so many": "N, a number of",
    "so much": "N, an amount of",
    "affairs?": "what implements it",
    "mend(?:s|ed|ing)?": "fix",
    "(?:comes?|came|coming) to": "is, reaches, equals",
    "doors?": "entry point",
    "(?<!math.)(?<!np.)floors?": "layer",
    "houses?": "conventions, project",
    "company": "batch, other sequences",
    "in vain": "without effect",
    "a?midst?": "during, in the middle of",
    "for ever": "forever, without end, indefinitely",
    "guests?": "candidate",
    "(?<!third.)(?<!first.)part(?:y|ies)": "caller, client",
    "papers": "documents",
    "desks?": "service, port",
    "shel(?:f|ves)": "store",
    "borrowers?": "what holds the reservation",
    "cranks?": "loop",
    "would (?:rather|sooner)": "prefers",
    "has not been asked": "a subject and a verb",
    "what is asked": "the request",
    "a matter of": "a subject and a verb",
    "in peace": "graceful",
    "last words": "error messages",
}
"""Each avoided word or phrase, as a pattern, with what to write in its place."""

RIDDLES = re.compile(r"(?:Whose|Whom?|That|Those|So (?:many|much)|Of|What|Which|Where|And|But)\b")
"""How no docstring begins: it says what the thing is or does."""

FILES = [
    *(ROOT / name for name in ("Dockerfile", "Makefile", "compose.yaml", "mkdocs.yml", "pyproject.toml")),
    *(ROOT / name for name in (".ci/run", ".pre-commit-config.yaml")),
    *ROOT.glob("*.md"),
]
FOLDERS = (
    *("src", "docs", "tests", "benchmarks", "deploy", "docker", "native"),
    *("changelog.d", "training", "website", ".github"),
)
SUFFIXES = {
    *(".py", ".md", ".js", ".html", ".css", ".sh", ".yaml", ".yml", ".toml", ".mk", ".conf", ".cfg"),
    *(".bicep", ".container", ".def", ".cpp", ".h", ".hpp"),
}

ALLOWED: dict[str, set[str]] = {
    "docker/apptainer.sh": {"nobody"},  # the user of that name
    "tests/container/apptainer.py": {"nobody"},
    "tests/postgres/conftest.py": {"nobody"},
    "tests/architecture/test_words.py": set(AVOIDED),
}
"""Patterns of AVOIDED that a file may have, because it quotes them."""


def test_modules_are_named_for_what_is_in_them(modules: list[Any]) -> None:
    assert [module.name for module in modules if EMPTY_NAMES & set(re.split(r"[/_.]", module.name))] == []


def _list_texts() -> list[str]:
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES)
    return sorted(path.relative_to(ROOT).as_posix() for path in (*FILES, *found))


def find_avoided(name: str) -> Iterator[str]:
    """`path:line: word` for each avoided word of the file and each docstring that begins as a riddle."""
    text = (ROOT / name).read_text(encoding="utf-8")
    words = "|".join(sorted(AVOIDED.keys() - ALLOWED.get(name, set()))).replace(" ", r"\s+(?:[#*/]+\s+)?")
    for match in re.finditer(rf"(?<![a-z])(?:{words})(?![a-z])", text, flags=re.IGNORECASE) if words else ():
        line = text.count("\n", 0, match.start()) + 1
        yield f"{name}:{line}: {' '.join(match[0].split())}"
    if name.endswith(".py") and re.search(rf"[\"']{RIDDLES.pattern}", text):
        yield from (f"{name}:{line}: {text[:30]}" for line, text in _docstrings(text) if RIDDLES.match(text))


def _docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Docstrings of modules, classes, functions and attributes, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def test_texts_are_plain_english() -> None:
    assert [hit for name in _list_texts() for hit in find_avoided(name)] == []
