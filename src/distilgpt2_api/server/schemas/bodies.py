"""Bodies that routes read themselves, in the OpenAPI document."""

from __future__ import annotations

from typing import Any


def json_body(*schemas: str) -> dict[str, Any]:
    """A route's `openapi_extra`: its body is JSON of one of the schemas, by their names in the document."""
    refs = [{"$ref": f"#/components/schemas/{schema}"} for schema in schemas]
    content = {"application/json": {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}
    return {"requestBody": {"required": True, "content": content}}
