"""`distilgpt2-api keys`: creates, lists and revokes API keys."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from distilgpt2_api.cli.options import FiniteRange, format_option
from distilgpt2_api.cli.tables import print_table
from distilgpt2_api.core.caller import LOWEST_PRIORITY, ApiKey, CallerLimits
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.settings import Settings
from distilgpt2_api.settings.key_file import MAX_COUNT, read_key_file, start_of
from distilgpt2_api.settings.key_file_edits import add_to_key_file, describe_key, make_key, remove_from_key_file

file_option: Callable[[Any], Any] = click.option(
    "--file", type=click.Path(path_type=Path), help="The key file. Default: the setting api_keys_file."
)


DAYS = re.compile(r"([1-9][0-9]{0,4})d")


class Moment(click.ParamType[datetime]):
    """A date, a time with its offset from UTC, or a number of days from now."""

    name = "WHEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        now = datetime.now(UTC).replace(microsecond=0)
        moment = now + timedelta(days=int(days[1])) if (days := DAYS.fullmatch(value)) else _parse_moment(value)
        if moment is None:
            self.fail(
                f"{value!r} is neither days from now, such as 90d, nor a date, such as 2027-01-31, nor a time with its "
                "offset, such as 2027-01-31T12:00:00Z.",
                param,
                ctx,
            )
        if moment <= now:
            self.fail(f"{value} is in the past.", param, ctx)
        return moment


def _parse_moment(text: str) -> datetime | None:
    for read in (date.fromisoformat, datetime.fromisoformat):
        with suppress(ValueError):
            return start_of(read(text))
    return None


@click.group("keys")
def command() -> None:
    """Create, list and revoke API keys.

    The file contains names, SHA-256 hashes, limits and dates, but no keys. A running service reloads it within seconds.
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
@click.option(
    "--expires",
    type=Moment(),
    help="When the key ends: days from now (90d), a date (2027-01-31, from its first moment in UTC) or a time with its "
    "offset. Default: never.",
)
def add(*, name: str, file: Path | None, expires: datetime | None, **limits: Any) -> None:
    """Create a key for NAME and print it. It can't be shown again.

    The entry is added to the file or, without a file, printed to stderr. The service's limits apply unless given here.
    """
    key = make_key()
    created = datetime.now(UTC).replace(microsecond=0)
    entry = describe_key(name, key, CallerLimits(**limits), created=created, expires=expires)
    file = file or Settings().api_keys_file
    if file is None:
        click.echo(f"{entry}\n(no key file is set: add the entry above to one; the key is)", err=True)
    else:
        add_to_key_file(file, entry)
        click.echo(f"{name} was added to {file}; save the key, it can't be shown again", err=True)
    click.echo(key)


@command.command("list")
@file_option
@format_option
def list_keys(*, file: Path | None, output_format: str) -> None:
    """Print the keys in the file: names, dates and limits.

    In the table, `-` means that the entry has no such value: for a limit, the service's default applies.
    """
    keys = read_key_file(_chosen(file))
    if output_format == "json":
        click.echo(json.dumps([_fields_of(key) for key in keys], indent=2))
        return
    now = datetime.now(UTC)
    limits = list(asdict(CallerLimits()))
    rows = [
        [
            key.name,
            _day(key.created, default="-"),
            _day(key.expires, default="never") + (" (expired)" if key.is_expired(now) else ""),
            *(
                "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
                for value in asdict(key.limits).values()
            ),
        ]
        for key in keys
    ]
    print_table(["name", "created", "expires", *limits], rows, num_left=3)


def _fields_of(key: ApiKey) -> dict[str, object]:
    dates = {"created": key.created, "expires": key.expires}
    return {
        "name": key.name,
        **{name: None if moment is None else moment.isoformat() for name, moment in dates.items()},
        **asdict(key.limits),
    }


def _day(moment: datetime | None, *, default: str) -> str:
    """In UTC."""
    return default if moment is None else moment.astimezone(UTC).date().isoformat()


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
