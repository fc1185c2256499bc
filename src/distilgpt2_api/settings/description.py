"""Settings in words: the rows of `distilgpt2-api config` and of docs/configuration.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import get_args

from pydantic import ByteSize
from pydantic.fields import FieldInfo

from distilgpt2_api.settings.automatic import is_auto
from distilgpt2_api.settings.secret import is_secret
from distilgpt2_api.settings.sources import PLATFORM_VARIABLES, SettingSource, env_name

BOUND_WORDS = {"ge": "at least", "gt": "more than", "le": "at most"}
BYTE_UNITS = {1 << 30: "GiB", 1 << 20: "MiB", 1 << 10: "KiB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingDescription:
    name: str
    env_names: tuple[str, ...]
    """The prefixed name, and the platforms' own where there is one."""
    value: str
    default: str
    source: SettingSource
    bounds: str
    """What values it can have, in words; empty: any."""
    description: str


def describe_field(name: str, field: FieldInfo, *, value: object, source: SettingSource) -> SettingDescription:
    platform = (PLATFORM_VARIABLES[name],) if name in PLATFORM_VARIABLES else ()
    return SettingDescription(
        name=name,
        env_names=(env_name(name), *platform),
        value=_in_words(value, field),
        default=_default_in_words(field),
        source=source,
        bounds=_bounds_in_words(field),
        description=field.description or "",
    )


def _default_in_words(field: FieldInfo) -> str:
    # Folders depend on the machine: those fields spell their default for the page.
    extra = field.json_schema_extra
    return str(extra["default"]) if isinstance(extra, Mapping) else _in_words(field.default, field)


def _in_words(value: object, field: FieldInfo) -> str:
    if value is None or value == ():
        return "auto" if is_auto(field) else ""
    if is_secret(field):
        return "(hidden)"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, ByteSize):
        return _bytes_in_words(value)
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _bytes_in_words(num_bytes: int) -> str:
    """Exact, in the largest unit that divides it; what a setting of bytes understands."""
    return next(
        (f"{num_bytes // size}{unit}" for size, unit in BYTE_UNITS.items() if num_bytes % size == 0), f"{num_bytes}"
    )


def _bounds_in_words(field: FieldInfo) -> str:
    if isinstance(field.annotation, type) and issubclass(field.annotation, StrEnum):
        return ", ".join(f"`{choice}`" for choice in field.annotation)
    if field.annotation is bool:
        return "`true`, `false`"
    in_words = _bytes_in_words if ByteSize in (field.annotation, *get_args(field.annotation)) else str
    limits = {
        name: in_words(getattr(constraint, name))
        for constraint in field.metadata
        for name in BOUND_WORDS
        if hasattr(constraint, name)
    }
    if limits.keys() == {"ge", "le"}:
        return f"{limits['ge']} to {limits['le']}"
    return ", ".join(f"{BOUND_WORDS[name]} {limit}" for name, limit in limits.items())
