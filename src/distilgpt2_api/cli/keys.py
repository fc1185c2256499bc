"""`distilgpt2-api keys`: make, list and revoke API keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from distilgpt2_api.cli.options import FiniteRange
from distilgpt2_api.core.caller import LOWEST_PRIORITY, CallerLimits
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.settings import Settings
from distilgpt2_api.settings.key_file import MAX_COUNT, read_key_file
from distilgpt2_api.settings.key_file_edits import add_to_key_file, describe_key, make_key, remove_from_key_file

file_option: Callable[[Any], Any] = click.option(
    "--file", type=click.Path(path_type=Path), help="The file of keys. Default: the setting api_keys_file."
)


@click.group("keys")
def command() -> None:
    """Make, list and revoke API keys.

    The file holds their SHA-256, names and limits, never a key. A running service reads it anew within seconds.
    """


@command.command("add")
@click.argument("name")
@file_option
@click.option("--max-requests", type=click.IntRange(1, MAX_COUNT), help="Requests in flight at once.")
@click.option("--tokens-per-s", type=FiniteRange(0, MAX_COUNT, min_open=True), help="Tokens a second.")
@click.option("--burst-tokens", type=click.IntRange(1, MAX_COUNT), help="Tokens that may be saved up.")
@click.option(
    "--min-priority",
    type=click.IntRange(LOWEST_PRIORITY, 0),
    help="The lowest `priority` that its requests may have; below 0 they go before all others. Default: 0.",
)
def add(*, name: str, file: Path | None, **limits: Any) -> None:
    """Make a key for NAME and print it, this once.

    The entry goes to the file, or where there is none to stderr. Limits that are not given are the service's.
    """
    key = make_key()
    entry = describe_key(name, key, CallerLimits(**limits))
    file = file or Settings().api_keys_file
    if file is None:
        click.echo(f"{entry}\n(no file of keys is set: the entry above is for one; the key is)", err=True)
    else:
        add_to_key_file(file, entry)
        click.echo(f"{name} is in {file}; the key, which nobody can show you again, is", err=True)
    click.echo(key)


@command.command("list")
@file_option
def list_names(*, file: Path | None) -> None:
    """Print the names of the keys in the file."""
    for key in read_key_file(_chosen(file)):
        click.echo(key.name)


@command.command("remove")
@click.argument("name")
@file_option
def remove(*, name: str, file: Path | None) -> None:
    """Revoke the key of NAME: take it out of the file."""
    file = _chosen(file)
    remove_from_key_file(file, name)
    click.echo(f"{name} is no longer in {file}", err=True)


def _chosen(file: Path | None) -> Path:
    file = file or Settings().api_keys_file
    if file is None:
        raise SettingsError("no file of keys: give --file, or set api_keys_file")
    return file
