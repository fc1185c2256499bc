"""Checks of a request's query string: like a body, it has no unknown and no duplicate key."""

import inspect
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request

from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.server.auth.access import Area, area_of
from distilgpt2_api.server.http.errors import UnknownParameterError
from distilgpt2_api.server.schema.documented_route import DocumentedRoute
from distilgpt2_api.server.schema.replacements import REPLACEMENTS, Replacement

ANY_QUERY = frozenset({"/", "/robots.txt"})
"""Paths, besides probes, metrics and pages, that monitors, load balancers and browsers request with their own keys."""


def checked_router(*tags: str) -> APIRouter:
    """A router whose routes check their query."""
    return APIRouter(tags=list(tags), dependencies=[Depends(check_query)], route_class=DocumentedRoute)


async def check_query(request: Request) -> None:
    """Raises InvalidRequestError, which names the key."""
    route = request.scope["route"]
    if not request.scope["query_string"] or allows_any_query(route):
        return
    known = query_names(route)
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


def allows_any_query(route: APIRoute) -> bool:
    return "POST" not in (route.methods or ()) and (route.path in ANY_QUERY or area_of(route.path) is not Area.REST)


def query_names(route: APIRoute) -> set[str]:
    """The keys that a route reads. A model's keys are its fields."""
    names: set[str] = set()
    for field in route.dependant.query_params:
        kind: Any = field.field_info.annotation
        is_model = inspect.isclass(kind) and issubclass(kind, BaseModel)
        names.update(kind.model_fields if is_model else [field.alias])
    return names
