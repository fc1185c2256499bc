"""Markers of settings: a secret value, and `auto`, which is None until `Settings` resolves it."""

from typing import Annotated

from pydantic import BeforeValidator, ByteSize
from pydantic.fields import FieldInfo

SECRET = object()
"""Marks a field in its `Annotated`."""
_AUTO = BeforeValidator(lambda value: None if value == "auto" else value)

AutoInt = Annotated[int | None, _AUTO]
AutoBytes = Annotated[ByteSize | None, _AUTO]


def is_secret(field: FieldInfo) -> bool:
    return SECRET in field.metadata


def is_auto(field: FieldInfo) -> bool:
    return _AUTO in field.metadata
