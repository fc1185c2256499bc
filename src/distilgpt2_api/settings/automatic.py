"""Field types of settings that accept `auto`, which becomes None."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, ByteSize
from pydantic.fields import FieldInfo


def _auto_to_none(value: object) -> object:
    return None if value == "auto" else value


_AUTO = BeforeValidator(_auto_to_none)

AutoInt = Annotated[int | None, _AUTO]
AutoBytes = Annotated[ByteSize | None, _AUTO]


def is_auto(field: FieldInfo) -> bool:
    return _AUTO in field.metadata
