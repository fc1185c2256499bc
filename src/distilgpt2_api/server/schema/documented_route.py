"""A route that describes its responses only in the OpenAPI document."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import BaseRoute


class DocumentedRoute(APIRoute):
    """FastAPI's route. It makes a validator for each response that a route describes, which would take a fifth of a
    start, and the validators of answers that an endpoint writes itself are never used. So only `described` has them.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self._options = options
        served = options | {"responses": None}
        if getattr(endpoint, "__annotations__", {}).get("return") is Response:
            served["response_model"] = None
        super().__init__(path, endpoint, **served)
        self.responses = options.get("responses") or {}

    def described(self) -> APIRoute:
        """The same route with all responses, for the document."""
        return APIRoute(self.path, self.endpoint, **self._options)


def described_routes(routes: Sequence[BaseRoute]) -> list[BaseRoute]:
    """The routes for the OpenAPI document: those in it with all their responses."""
    return [
        route.described() if isinstance(route, DocumentedRoute) and route.include_in_schema else route
        for route in routes
    ]
