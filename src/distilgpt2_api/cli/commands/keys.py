"""`distilgpt2-api keys`: creates, lists and revokes API keys, and prints their usage."""

import json
import re
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from itertools import groupby
from operator import add, attrgetter
from pathlib import Path
from typing import Any

import click

from distilgpt2_api.cli.options import FiniteRange, format_option
from distilgpt2_api.cli.terminal import print_table
from distilgpt2_api.core.caller import LOWEST_PRIORITY, ApiKey, CallerLimits
from distilgpt2_api.core.errors import SettingsError, StoreError
from distilgpt2_api.core.usage import DailyUsage
from distilgpt2_api.settings import Settings
from distilgpt2_api.settings.key_file import MAX_BUDGET, MAX_COUNT, read_key_file, start_of
from distilgpt2_api.settings.key_file_edits import (
    add_to_key_file,
    describe_key,
    make_key,
    remove_from_key_file,
    saved_key,
)
from distilgpt2_api.usage.databases import usage_store_at

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
@click.option("--tokens-per-day", type=click.IntRange(1, MAX_BUDGET), help="Budget of tokens in a day, in UTC.")
@click.option("--tokens-per-month", type=click.IntRange(1, MAX_BUDGET), help="Budget of tokens in a calendar month.")
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
@click.option(
    "--save",
    "saved",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Write the key to this new file, which only you can read, instead of printing it.",
)
def add_key(*, name: str, file: Path | None, expires: datetime | None, saved: Path | None, **limits: Any) -> None:
    """Create a key for NAME and print it. It can't be shown again.

    The entry is added to the file or, without a file, printed to stderr. The service's limits apply unless given here.
    """
    key = make_key()
    created = datetime.now(UTC).replace(microsecond=0)
    entry = describe_key(name, key, CallerLimits(**limits), created=created, expires=expires)
    if file is None:
        settings = Settings()
        file = settings.api_keys_file
        if name in {key.name for key in settings.api_keys}:  # a service would refuse the file
            raise SettingsError(f"the setting api_keys already has a key {name}; choose another name")
    if saved is not None and file is not None and saved.resolve() == file.resolve():
        raise click.BadParameter(f"{saved} is the key file, which has only hashes of keys.", param_hint="--save")
    with nullcontext() if saved is None else saved_key(saved, key):
        if file is not None:
            add_to_key_file(file, entry)
    if file is None:
        place = "" if saved is None else f" in {saved}"
        click.echo(f"{entry}\n(no key file is set: add the entry above to one; the key is{place})", err=True)
    if saved is None:
        _print_key(key, name, file)
    if file is not None:
        rest = "save the key, it can't be shown again" if saved is None else f"the key is in {saved}"
        click.echo(f"{name} was added to {file}; {rest}", err=True)


def _print_key(key: str, name: str, file: Path | None) -> None:
    """If it can't be printed, as to a file on a full disk, its entry is removed again."""
    try:
        click.echo(key)
    except OSError:
        if file is not None:
            remove_from_key_file(file, name)
        raise


@command.command("list")
@file_option
@format_option
def list_keys(*, file: Path | None, output_format: str) -> None:
    """Print the keys in the file: names, dates and limits, and when a service was last used with them.

    In the table, `-` means that there is no such value: for a limit, the service's default applies.
    """
    keys = read_key_file(_chosen(file))
    last_uses = _read_last_uses()
    if output_format == "json":
        fields = [_fields_of(key) | {"last_used": last_uses.get(key.name)} for key in keys]
        click.echo(json.dumps(fields, indent=2))
        return
    if not keys:
        click.echo("no keys", err=True)
        return
    now = datetime.now(UTC)
    limits = list(asdict(CallerLimits()))
    rows = [
        [
            key.name,
            _day(key.created, default="-"),
            _day(key.expires, default="never") + (" (expired)" if key.is_expired(now) else ""),
            last_uses.get(key.name, "-").partition("T")[0],
            *(
                "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
                for value in asdict(key.limits).values()
            ),
        ]
        for key in keys
    ]
    print_table(["name", "created", "expires", "last_used", *limits], rows, num_left=4)


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


class Day(click.ParamType[date]):
    name = "DAY"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a day, such as 2027-01-31.", param, ctx)


@command.command("usage")
@click.argument("name", required=False)
@click.option("--since", type=Day(), help="The first day, in UTC. Default: the first of this month.")
@click.option("--until", type=Day(), help="The last day, in UTC. Default: today.")
@click.option("--by-day", is_flag=True, help="A row for each day.")
@format_option
def print_usage(*, name: str | None, since: date | None, until: date | None, by_day: bool, output_format: str) -> None:
    """Print what each key, or the key NAME, has used: requests, tokens and refusals.

    Reads the store of running services (the setting usage_store). Keys that have been removed are in it, too.
    """
    today = datetime.now(UTC).date()
    first = today.replace(day=1) if since is None else since
    last = max(first, today) if until is None else until
    if last < first:
        raise click.BadParameter(f"{last} is before --since, {first}.", param_hint="--until")
    store = usage_store_at(Settings().usage_location())
    if store.is_missing:
        raise SettingsError(f"no usage is stored: there is no {store.name} (usage_store)")
    with store.session() as session:
        rows = [row for row in session.read(first, last) if name in (None, row.key)]
    if not by_day:
        by_key = groupby(rows, key=attrgetter("key"))
        rows = [reduce(add, [replace(row, day=first) for row in of_key]) for _, of_key in by_key]
    if output_format == "json":
        click.echo(json.dumps([_usage_fields(row, by_day=by_day) for row in rows], indent=2))
        return
    if not rows:
        period = f"since {first}" if until is None else f"from {first} to {last}"
        click.echo(f"no usage{'' if name is None else f' of {name}'} {period}", err=True)
        return
    header = ["key", *(["day"] if by_day else []), "requests", "prompt tokens", "completion tokens", "refusals"]
    cells = [list(map(str, _usage_fields(row, by_day=by_day).values())) for row in rows]
    print_table([*header, "last used"], cells, num_left=1 + by_day)


def _usage_fields(row: DailyUsage, *, by_day: bool) -> dict[str, object]:
    return {
        "key": row.key,
        **({"date": row.day.isoformat()} if by_day else {}),
        "requests": row.usage.num_requests,
        "prompt_tokens": row.usage.num_prompt_tokens,
        "completion_tokens": row.usage.num_completion_tokens,
        "refusals": row.usage.num_refusals,
        "last_used": _moment_text(row.last_used_s),
    }


def _moment_text(unix_s: float) -> str:
    return datetime.fromtimestamp(int(unix_s), UTC).isoformat()


def _read_last_uses() -> dict[str, str]:
    """The moment of each key's last request. Without a store that can be read, a line on stderr says so."""
    try:
        store = usage_store_at(Settings().usage_location())
        if store.is_missing:
            return {}
        with store.session() as session:
            return {key: _moment_text(last_s) for key, last_s in session.last_uses().items()}
    except (SettingsError, StoreError) as error:
        click.echo(f"(last uses are not known: {error})", err=True)
        return {}


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
        raise SettingsError("no key file: give --file, or set DISTILGPT2_API_KEYS_FILE")
    return file
