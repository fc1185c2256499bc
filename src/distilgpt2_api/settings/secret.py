"""Marks settings whose values no page, error or log may show."""

from __future__ import annotations

from pydantic.fields import FieldInfo


class Secret:
    """Marks a field in its `Annotated`."""


SECRET = Secret()


def is_secret(field: FieldInfo) -> bool:
    return any(isinstance(entry, Secret) for entry in field.metadata)
