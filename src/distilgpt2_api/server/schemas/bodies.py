"""Bodies that routes read themselves, in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

REF_TEMPLATE = "#/components/schemas/{model}"


def json_body(*models: type[BaseModel]) -> dict[str, Any]:
    """A route's `openapi_extra`: its body is JSON of one of the models."""
    refs = [reference(model) for model in models]
    content = {"application/json": {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}
    return {"requestBody": {"required": True, "content": content}}


def reference(model: type[BaseModel]) -> dict[str, str]:
    """To the model's schema in the document, which has its name."""
    return {"$ref": REF_TEMPLATE.format(model=model.__name__)}
