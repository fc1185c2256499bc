"""`distilgpt2-api keys`: creates, lists and revokes API keys."""

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
    "--file", type=click.Path(path_type=Path), help="The key file. Default: the setting api_keys_file."
)


@click.group("keys")
def command() -> None:
    """Create, list and revoke API keys.

    The file contains names, SHA-256 hashes and limits, but no keys. A running service reloads it within seconds.
    """


@command.command("add")
@click.argument("name")
@file_option
@click.option("--max-requests", type=click.IntRange(1, MAX_COUNT), help="Limit on concurrent requests.")
@click.option("--tokens-per-s", type=FiniteRange(0, MAX_COUNT, min_open=True), help="Limit on tokens per second.")
@click.option(
    "--burst-tokens",
    type=click.IntRange(1, MAX_COUNT),
    help="Tokens that may be used at once after a pause. A larger request needs the whole burst; "
    "its surplus delays the next.",
)
@click.option(
    "--min-priority",
    type=click.IntRange(LOWEST_PRIORITY, 0),
    help="The lowest `priority` that its requests may set; below 0 they go before all others. Default: 0.",
)
def add(*, name: str, file: Path | None, **limits: Any) -> None:
    """Create a key for NAME and print it. It can't be shown again.

    The entry is added to the file or, without a file, printed to stderr. The service's limits apply unless given here.
    """
    key = make_key()
    entry = describe_key(name, key, CallerLimits(**limits))
    file = file or Settings().api_keys_file
    if file is None:
        click.echo(f"{entry}\n(no key file is set: add the entry above to one; the key is)", err=True)
    else:
        add_to_key_file(file, entry)
        click.echo(f"{name} was added to {file}; save the key, it can't be shown again", err=True)
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
    """Revoke the key of NAME: remove it from the file."""
    file = _chosen(file)
    remove_from_key_file(file, name)
    click.echo(f"{name} was removed from {file}", err=True)


def _chosen(file: Path | None) -> Path:
    file = file or Settings().api_keys_file
    if file is None:
        raise SettingsError("no key file: give --file, or set api_keys_file")
    return file
