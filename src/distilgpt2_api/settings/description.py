"""Descriptions of settings, for `distilgpt2-api config` and docs/configuration.md."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import get_args

from pydantic import ByteSize
from pydantic.fields import FieldInfo

from distilgpt2_api.settings.markers import is_auto, is_secret
from distilgpt2_api.settings.sources import PLATFORM_VARIABLES, SettingSource, env_name

BOUND_PHRASES = {"ge": "at least", "gt": "more than", "le": "at most"}
BYTE_UNITS = {1 << 30: "GiB", 1 << 20: "MiB", 1 << 10: "KiB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingDescription:
    name: str
    env_names: tuple[str, ...]
    """The prefixed name, then the platform's name if there is one."""
    value: str
    default: str
    source: SettingSource
    bounds: str
    """The allowed values as text; empty: any."""
    description: str


def describe_field(name: str, field: FieldInfo, *, value: object, source: SettingSource) -> SettingDescription:
    platform = (PLATFORM_VARIABLES[name],) if name in PLATFORM_VARIABLES else ()
    return SettingDescription(
        name=name,
        env_names=(env_name(name), *platform),
        value=_format_value(value, field),
        default=_describe_default(field),
        source=source,
        bounds=_describe_bounds(field),
        description=field.description or "",
    )


def _describe_default(field: FieldInfo) -> str:
    # A default folder depends on the machine, so its field states the default as text.
    extra = field.json_schema_extra
    return str(extra["default"]) if isinstance(extra, Mapping) else _format_value(field.default, field)


def _format_value(value: object, field: FieldInfo) -> str:
    if value is None or value == ():
        return "auto" if is_auto(field) else ""
    if is_secret(field):
        return "(hidden)"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, ByteSize):
        return _format_bytes(value)
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _format_bytes(num_bytes: int) -> str:
    """The exact size in the largest unit that divides it, as a setting would accept it."""
    return next(
        (f"{num_bytes // size}{unit}" for size, unit in BYTE_UNITS.items() if num_bytes and num_bytes % size == 0),
        f"{num_bytes}",
    )


def _describe_bounds(field: FieldInfo) -> str:
    if isinstance(field.annotation, type) and issubclass(field.annotation, StrEnum):
        return ", ".join(f"`{choice}`" for choice in field.annotation)
    if field.annotation is bool:
        return "`true`, `false`"
    format_bound = _format_bytes if ByteSize in (field.annotation, *get_args(field.annotation)) else str
    limits = {
        name: format_bound(getattr(constraint, name))
        for constraint in field.metadata
        for name in BOUND_PHRASES
        if hasattr(constraint, name)
    }
    if limits.keys() == {"ge", "le"}:
        return f"{limits['ge']} to {limits['le']}"
    return ", ".join(f"{BOUND_PHRASES[name]} {limit}" for name, limit in limits.items())
