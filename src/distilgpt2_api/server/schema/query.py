"""A request's query string: no unknown key and no key twice, as in bodies."""

from __future__ import annotations

import inspect
from typing import Any

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request

from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.server.auth.access import Area, area_of
from distilgpt2_api.server.http.errors import UnknownParameterError
from distilgpt2_api.server.schema.other_names import REPLACEMENTS, Replacement

ANY_QUERY = frozenset({"/", "/robots.txt"})
"""Beside probes, metrics and pages: what monitors, load balancers and browsers ask for with keys of their own."""


async def check_query(request: Request) -> None:
    """A dependency of every route. Raises InvalidRequestError with the key's name."""
    route = request.scope["route"]
    if not request.scope["query_string"] or takes_any_query(route):
        return
    known = names_of(route)
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        shown = name[:100]
        if name not in known:
            other_name = next(
                (other for other in REPLACEMENTS.get(name, Replacement(())).names if other in known), None
            )
            hint = f"; use `{other_name}`" if other_name else ""
            raise UnknownParameterError(f"unknown parameter: {shown!r} in the query{hint}", param=shown)
        if name in seen:
            raise InvalidRequestError(f"the query has the key {shown!r} twice", param=shown)
        seen.add(name)


def takes_any_query(route: APIRoute) -> bool:
    return "POST" not in (route.methods or ()) and (route.path in ANY_QUERY or area_of(route.path) is not Area.REST)


def names_of(route: APIRoute) -> set[str]:
    """The keys that a route reads; those of a model are its fields."""
    names: set[str] = set()
    for field in route.dependant.query_params:
        kind: Any = field.field_info.annotation
        is_model = inspect.isclass(kind) and issubclass(kind, BaseModel)
        names.update(kind.model_fields if is_model else [field.alias])
    return names
