"""Values that may be left to us: the text `auto` is None."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, ByteSize


def _auto_to_none(value: object) -> object:
    return None if value == "auto" else value


AutoInt = Annotated[int | None, BeforeValidator(_auto_to_none)]
AutoBytes = Annotated[ByteSize | None, BeforeValidator(_auto_to_none)]
