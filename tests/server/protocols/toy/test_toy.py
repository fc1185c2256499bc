"""A protocol is one folder and one line: nothing outside the folder names the toy protocol but `PROTOCOLS_WITH_TOY`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.routing import APIRoute
from opentelemetry.trace import NoOpTracerProvider
from tests.server.protocols.toy.protocol import TOY

from distilgpt2_api.core.caller import ApiKey, digest_of
from distilgpt2_api.observability.traces import Traces
from distilgpt2_api.server.app import PROTOCOLS
from distilgpt2_api.server.auth.access import Access
from distilgpt2_api.server.auth.api_keys import KeyRing
from distilgpt2_api.server.http.routing.protocol import Protocol, Protocols

PROTOCOLS_WITH_TOY = Protocols(*PROTOCOLS, TOY)
KEYS = Access(keys=KeyRing((ApiKey(name="alice", digest=digest_of(b"k" * 20)),)))


@pytest.fixture
def toy_client(open_client: Callable[..., Any]) -> Any:
    return open_client(protocols=PROTOCOLS_WITH_TOY)


def test_it_streams_ndjson(toy_client: Any) -> None:
    answer = toy_client.post("/toy/write", json={"text": "a"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert "".join(line["piece"] for line in lines[:-1]) == " hello world"
    assert lines[-1] == {"end": True}


def test_its_errors_have_its_own_shape_and_statuses(toy_client: Any) -> None:
    answer = toy_client.post("/toy/write", json={"text": "a", "more": 1})
    assert answer.status_code == 418
    assert answer.json().keys() == {"failure"}
    assert toy_client.post("/toy/write", content=b"{").status_code == 418
    assert toy_client.get("/toy/models?x=1").json().keys() == {"failure"}
    wrong_method = toy_client.request("PATCH", "/toy/write")
    assert (wrong_method.status_code, wrong_method.json().keys()) == (405, {"failure"})


def test_an_error_after_the_first_byte_is_its_own_last_event(
    open_client: Callable[..., Any], build_runner: Any
) -> None:
    def fail(_plan: Any) -> None:
        if len(runner.plans) == 3:
            raise ZeroDivisionError

    runner = build_runner(on_run=fail)
    client = open_client(runner=runner, on_failure=lambda _error: None, protocols=PROTOCOLS_WITH_TOY)
    answer = client.post("/toy/write", json={"text": "a"})
    assert answer.status_code == 200
    assert json.loads(answer.text.splitlines()[-1]).keys() == {"broken"}


def test_its_paths_are_no_prompts(client: Any, toy_client: Any) -> None:
    assert client.get("/toy/a mistyped path").json()["generated_sequences"] == ["toy/a mistyped path hello world"]
    for path in ("/toy/a mistyped path", "/toy/model", "/toy"):
        answer = toy_client.get(path)
        assert (answer.status_code, answer.json().keys()) == (404, {"failure"}), path
    assert toy_client.get("/toys").json()["generated_sequences"] == ["toys hello world"]
    assert "did you mean /toy/write?" in toy_client.post("/write").json()["error"]["message"]


def test_a_path_that_it_lacks_gets_advice(client: Any, toy_client: Any) -> None:
    for path in ("/toy/paint", "/toy/paint/", "/toy/paint/red"):
        answer = toy_client.post(path, json={})
        assert answer.status_code == 404
        assert answer.json()["failure"].endswith("; this toy only writes: use /toy/write")
    assert "toy" not in client.post("/toy/paint", json={}).json()["error"]["message"].partition(";")[2]


def test_the_document_has_it(open_client: Callable[..., Any]) -> None:
    document = open_client(protocols=PROTOCOLS_WITH_TOY, access=KEYS).scene.app.openapi()
    operation = document["paths"]["/toy/write"]["post"]
    body = operation["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/ToyRequest"}
    assert body["examples"] == {"A text": {"value": {"text": "Once"}}}
    assert document["components"]["schemas"]["ToyRequest"]["properties"].keys() == {"text"}
    assert operation["security"] == [{"key": []}]
    responses = operation["responses"] | {"418": document["paths"]["/toy/models"]["get"]["responses"]["418"]}
    for status in ("401", "418", "503"):
        schema = responses[status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ToyError"}, status


def test_it_needs_a_key(open_client: Callable[..., Any]) -> None:
    client = open_client(protocols=PROTOCOLS_WITH_TOY, access=KEYS)
    for path in ("/toy/models", "/toy/write", "/toy/x"):
        answer = client.get(path)
        assert (answer.status_code, answer.json().keys()) == (401, {"failure"}), path
    assert client.get("/toy/models", headers={"x-api-key": "k" * 20}).json() == {"names": ["organisation/tiny"]}


def test_its_spans_have_its_operation(open_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    traces = Traces(NoOpTracerProvider(), version="1", model="tiny")
    seen: list[tuple[str, str]] = []

    def note(request: Any) -> str:
        seen.append((request.route, request.operation))
        return ""

    monkeypatch.setattr(traces, "add", note)
    client = open_client(protocols=PROTOCOLS_WITH_TOY, traces=traces)
    client.post("/toy/write", json={"text": "a"})
    client.complete(prompt="a", max_tokens=1)
    assert seen == [("/toy/write", "toy"), ("/v1/completions", "text_completion")]


@pytest.mark.parametrize("protocol", [*PROTOCOLS_WITH_TOY])
def test_every_route_of_a_protocol_has_its_errors(protocol: Protocol) -> None:
    assert protocol.routes
    for route in protocol.routes:
        assert isinstance(route, APIRoute)
        for method in route.methods or ():
            assert PROTOCOLS_WITH_TOY.find(method, route.path).errors is protocol.errors, (method, route.path)
