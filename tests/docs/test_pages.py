"""Links, anchors, scripts, make targets and tests that the pages name exist."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from tests.docs.blocks import (
    ACTIVATION,
    COMMAND_LANGUAGES,
    FENCE,
    PAGES,
    READING_ORDER,
    ROOT,
    SERVING,
    command_blocks,
    page_name,
)

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MAKEFILES = [ROOT / "Makefile", *ROOT.glob("*/*.mk"), *ROOT.glob("tests/*/*.mk")]
TARGETS = {
    target
    for path in MAKEFILES
    for line in re.findall(r"^([a-z][\w -]*):(?!=)", path.read_text(encoding="utf-8"), re.MULTILINE)
    for target in line.split()
}


@pytest.fixture(params=PAGES, ids=page_name)
def page(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub and MkDocs create for headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_link_has_a_target(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)|<(?:img|source)\b[^>]*\b(?:src|srcset)=\"([^\"]+)\"")


def test_every_picture_exists_and_is_shown_on_a_page() -> None:
    shown = {
        (page.parent / (in_markdown or in_html)).resolve()
        for page in PAGES
        for in_markdown, in_html in PICTURE.findall(page.read_text(encoding="utf-8"))
    }
    assert shown == set((ROOT / "docs" / "images").iterdir())


def test_every_make_target_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`(?:[A-Z_]+=\S+ )*make ([\w-]+)|^make ([\w-]+)", text, re.MULTILINE)
    assert {in_text or in_block for in_text, in_block in named} <= TARGETS


def test_every_script_and_folder_in_a_command_exists(page: Path) -> None:
    for path in re.findall(r"(?<![\w/.])deploy/[\w./-]*\w", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists() or (page.parent / path).exists(), path


def test_every_command_is_run_or_marked_with_a_reason(page: Path) -> None:
    """A marker is directly above its block, and the tests that it names exist.

    `make test-docs` (tests/commands) runs blocks without a marker.
    """
    blocks = list(command_blocks(page))
    text = page.read_text(encoding="utf-8")
    reasons = [block.reason for block in blocks if block.reason is not None]
    assert text.count("<!-- not run:") == len(reasons), "a marker without its block of commands"
    for reason in reasons:
        for path in re.findall(r"\b(?:tests|docker|\.github)/[\w./-]*\w", reason):
            assert (ROOT / path).exists(), reason
        assert set(re.findall(r"\bmake ([\w-]+)", reason)) <= TARGETS, reason


def test_commands_stand_in_blocks_that_say_their_language(page: Path) -> None:
    """The tests see every command: none is in an indented block or in a block without a language."""
    text = page.read_text(encoding="utf-8")
    prose = FENCE.sub("", text)
    command = r"(?:\.venv/bin/)?(?:distilgpt2-api|curl|docker|podman|pip|make|gunicorn|apptainer|kubectl) "
    assert not re.findall(rf"^ {{4,}}{command}.*$", prose, re.MULTILINE)
    for fence in FENCE.finditer(text):
        if fence["language"] not in COMMAND_LANGUAGES:
            assert not re.search(rf"^{command}", fence["text"], re.MULTILINE), fence["text"]


@pytest.mark.reported("first hour: one block served and then sent a request, which needs a second terminal")
def test_a_command_that_serves_is_the_last_of_its_block_and_the_page_says_where_to_go_on(page: Path) -> None:
    """A second service on a page needs the port of the first: the page says to stop that one."""
    lines = page.read_text(encoding="utf-8").splitlines()
    blocks = list(command_blocks(page))
    assert not [block.name for block in blocks if any(map(SERVING.fullmatch, block.commands[:-1]))]
    typed = [block for block in blocks if block.reason is None]
    is_served = False
    for block, following in pairwise(typed):
        is_served = is_served or block.is_serving
        between = "\n".join(lines[block.line : following.line])
        if following.is_serving and is_served:
            assert "Ctrl+C" in between, f"{following.name}: say to stop the service before"
        elif block.is_serving:
            assert re.search("another terminal|Ctrl", between), f"{following.name}: say to open another terminal"


@pytest.mark.reported("first hour: the README typed .venv/bin/distilgpt2-api, other pages distilgpt2-api")
def test_commands_are_typed_in_the_activated_environment(page: Path) -> None:
    commands = "".join(block.text for block in command_blocks(page))
    assert not re.search(r"(?<!/)\.venv/bin/(?!activate)", commands)
    assert "pip install 'distilgpt2-api" not in commands, "there is no such package on an index"


@pytest.mark.reported(
    "a command typed twice emptied the file with the only copy of a key; one that failed left an empty file"
)
def test_no_page_redirects_a_new_key_into_a_file(page: Path) -> None:
    """`--save` creates the file only with the key, and never overwrites one."""
    commands = [command for block in command_blocks(page) for command in block.commands]
    assert [command for command in commands if re.search(r"keys add [^#]*>", command)] == []


@pytest.mark.reported("first hour: the shell's prompt stood behind the answer, and one answer behind another")
def test_each_answer_has_its_own_line() -> None:
    """A stream (`-N`) ends with an empty line of its own."""
    commands = [command for page in PAGES for block in command_blocks(page) for command in block.commands]
    requests = [command for command in commands if re.match(r"(sudo )?curl ", command)]
    assert len(requests) > 30
    assert [command for command in requests if not re.match(r"(sudo )?curl (-N|-w '\\n') ", command)] == []


@pytest.mark.parametrize("name", ["README.md", "docs/index.md", "docs/tutorial.md"])
def test_the_first_pages_say_how_to_activate_it(name: str) -> None:
    lines = [line for block in command_blocks(ROOT / name) for line in block.text.splitlines()]
    assert ACTIVATION in lines


def test_every_page_of_the_site_is_in_the_navigation() -> None:
    """Except decisions, which have their own index."""
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    decisions = {path for path in pages if re.match(r"decisions/\d", path)}
    assert pages - decisions <= {path.relative_to(docs).as_posix() for path in READING_ORDER[1:]}


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 150
