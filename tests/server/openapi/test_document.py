"""The OpenAPI document describes the routes, their bodies, errors and limits."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from distilgpt2_api.server.app import PROTOCOLS
from distilgpt2_api.server.http.errors import ErrorAnswer


def test_the_document_has_bodies_and_errors(client: Any) -> None:
    document = client.get("/openapi.json").json()
    text = client.get("/openapi.json").text
    schemas = document["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in schemas
    operation = document["paths"]["/v1/completions"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/CompletionRequest")
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert set(operation["responses"]) >= {"400", "404", "413", "415", "429", "503", "504"}
    with_422 = {path for path, item in document["paths"].items() for one in item.values() if "422" in one["responses"]}
    assert with_422 >= {"/", "/generate", "/generate_stream", "/info"}
    wrong = ErrorAnswer(status=400, message="wrong", type="invalid_request_error")
    for path in with_422:
        errors = [PROTOCOLS.find(method.upper(), path).errors for method in document["paths"][path]]
        assert 422 in {shape.status(wrong) for shape in errors}, "other protocols have 400"
    parameters = document["paths"]["/{prompt}"]["get"]["parameters"]
    assert [parameter["name"] for parameter in parameters][:3] == ["prompt", "max_new_tokens", "num_return_sequences"]
    assert all("head" not in path_item for path_item in document["paths"].values())


def test_the_document_has_the_limits_of_the_settings(open_client: Callable[..., Any]) -> None:
    document = open_client(max_n=3, max_logprobs=2, max_stop_sequences=1).get("/openapi.json").json()
    properties = document["components"]["schemas"]["CompletionRequest"]["properties"]
    maxima = [properties[name]["anyOf"][0]["maximum"] for name in ("n", "best_of", "logprobs")]
    assert maxima == [3, 3, 2]
    assert [choice["maxItems"] for choice in properties["stop"]["anyOf"] if choice["type"] == "array"] == [1]
    parameters = {one["name"]: one["schema"] for one in document["paths"]["/{prompt}"]["get"]["parameters"]}
    assert parameters["num_return_sequences"]["maximum"] == 3


def test_links_in_the_document_follow_a_proxys_prefix(open_client: Callable[..., Any]) -> None:
    """The pages use relative links; the document has the prefix as its server."""
    client = open_client(root_path="/base")
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/base"}]
