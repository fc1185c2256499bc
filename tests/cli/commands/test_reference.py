from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distilgpt2_api.cli import main

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def test_the_page_is_up_to_date(invoke: Any) -> None:
    """To fix it: distilgpt2-api reference > docs/cli.md."""
    assert invoke("reference").output == PAGE.read_text(encoding="utf-8")


def test_the_page_has_every_command_and_option(invoke: Any) -> None:
    page = invoke("reference").output
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        assert f"\n## {name}\n" in page
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert all(f"`{option}" in page for option in parameter.opts)


def test_the_page_does_not_depend_on_the_terminal(invoke: Any, monkeypatch: Any) -> None:
    page = invoke("reference").output
    monkeypatch.setenv("COLUMNS", "40")
    assert invoke("reference").output == page
