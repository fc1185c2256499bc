"""Imports of the server that leave for later what a start does not need.

FastAPI builds pydantic's validators for the OpenAPI specification, which check only the document, and it imports
pydantic's first version to refuse its models, of which there are none here. Both together take a tenth of a start.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel


@contextmanager
def lean_imports() -> Iterator[None]:
    """For the process that only serves: models that are defined meanwhile are built when they are first used."""
    base: Any = BaseModel
    modules: dict[str, Any] = sys.modules
    rebuild = vars(BaseModel)["model_rebuild"]

    def rebuild_later(cls: type[BaseModel], /, **options: Any) -> bool | None:
        """A call without options asks only for what the first use does, which has options."""
        rebuilt: bool | None = rebuild.__func__(cls, **options) if options else None
        return rebuilt

    base.model_config["defer_build"] = True
    base.model_rebuild = classmethod(rebuild_later)
    is_hidden = modules.setdefault("pydantic.v1", None) is None  # its import fails, which FastAPI expects
    try:
        yield
    finally:
        del base.model_config["defer_build"]
        base.model_rebuild = rebuild
        if is_hidden:
            del modules["pydantic.v1"]
