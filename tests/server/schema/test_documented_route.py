"""Routes that describe their responses only in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from distilgpt2_api.server.schema.documented_route import DocumentedRoute, described_routes


def test_a_served_route_has_no_validators_of_responses(routes: Sequence[BaseRoute]) -> None:
    served = [route for route in routes if isinstance(route, DocumentedRoute)]

    assert len(served) > 50
    assert [route.path for route in served if route.response_fields] == []
    assert any(route.responses for route in served)


def test_a_described_route_has_them_all(routes: Sequence[BaseRoute]) -> None:
    for served, described in zip(routes, described_routes(routes), strict=True):
        assert isinstance(served, APIRoute)
        assert isinstance(described, APIRoute)
        assert (served.path, served.methods, served.unique_id) == (
            described.path,
            described.methods,
            described.unique_id,
        )
        if served.include_in_schema:
            models = {status for status, response in served.responses.items() if "model" in response}
            assert described.response_fields.keys() == models
