"""Every protocol applies the service's sampling defaults to what a request leaves out, and only to that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from distilgpt2_api.core.params import PLAIN_PARAMETERS, SamplingParams
from distilgpt2_api.core.sampling_defaults import SamplingDefaults
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

Json = dict[str, Any]

MESSAGES = [{"role": "user", "content": "hi"}]
VALUES = {"temperature": 0.5, "top_k": 7, "top_p": 0.75, "min_p": 0.125, "repetition_penalty": 1.5, "max_new_tokens": 3}


@dataclass(frozen=True)
class Route:
    """A route that generates text, its body, and its names of temperature and maximum length."""

    path: str
    body: Json | None
    inner: str = ""
    """The field that has the parameters."""
    length: str = "max_tokens"

    def send(self, client: Any, **parameters: object) -> Any:
        if self.body is None:
            query = "&".join(f"{name}={value}" for name, value in parameters.items())
            return client.get(f"{self.path}?{query}" if query else self.path)
        if self.inner and parameters:
            return client.post(self.path, json={**self.body, self.inner: parameters})
        return client.post(self.path, json={**self.body, **parameters})


ROUTES = (
    Route("/v1/completions", {"prompt": "a"}),
    Route("/v1/chat/completions", {"messages": MESSAGES}, length="max_completion_tokens"),
    Route("/generate", {"inputs": "a"}, inner="parameters", length="max_new_tokens"),
    Route("/api/generate", {"prompt": "a", "stream": False}, inner="options", length="num_predict"),
    Route("/api/chat", {"messages": MESSAGES, "stream": False}, inner="options", length="num_predict"),
    Route("/completion", {"prompt": "a"}, length="n_predict"),
    Route("/Hello", None, length="max_new_tokens"),
)
PARAMETRIZED = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)


@pytest.fixture
def serve(open_client: Callable[..., Any]) -> Callable[..., Any]:
    """`serve(temperature=0.5, …)`: a client of a service with these defaults."""

    def start(**values: object) -> Any:
        template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", origin="test")
        return open_client(chat_template=template, sampling_defaults=SamplingDefaults.parse(values))

    return start


def params_of(client: Any, answer: Any) -> SamplingParams:
    """The parameters that the engine got for the last request."""
    assert answer.status_code == 200, answer.text
    params: SamplingParams = client.scene.runner.plans[-1].rows[0].params
    return params


@PARAMETRIZED
def test_a_parameter_that_is_left_out_has_the_services_default(route: Route, serve: Any) -> None:
    client = serve(**VALUES)
    params = params_of(client, route.send(client))
    assert {name: getattr(params, name) for name in VALUES if name != "max_new_tokens"} | {
        "max_new_tokens": params.max_tokens
    } == VALUES


@PARAMETRIZED
def test_a_parameter_that_is_sent_replaces_the_default(route: Route, serve: Any) -> None:
    client = serve(**VALUES)
    params = params_of(client, route.send(client, **{"temperature": 1.5, "top_k": 9, route.length: 2}))
    assert (params.temperature, params.top_k, params.max_tokens) == (1.5, 9, 2)
    assert (params.top_p, params.min_p, params.repetition_penalty) == (0.75, 0.125, 1.5)


@PARAMETRIZED
def test_without_a_default_each_protocol_has_its_own(route: Route, serve: Any) -> None:
    client = serve()
    own = {"/api/generate": (0.8, 40, 0.9), "/api/chat": (0.8, 40, 0.9), "/Hello": (1.0, 50, 1.0)}
    own["/completion"] = (0.8, 40, 0.95)
    params = params_of(client, route.send(client, **({route.length: 2} if route.body else {})))
    expected = own.get(route.path, (0.0 if route.path == "/generate" else 1.0, 0, 1.0))
    assert (params.temperature, params.top_k, params.top_p) == expected
    others = PLAIN_PARAMETERS.keys() - {"temperature", "top_k", "top_p", "skip_special_tokens"}
    others -= {"min_p"} if route.path == "/completion" else set()
    others -= {"repeat_last_n"} if route.path in {"/completion", "/api/generate", "/api/chat"} else set()
    others -= {"include_stop_str_in_output"} if route.path == "/generate" else set()
    assert all(getattr(params, name) == PLAIN_PARAMETERS[name].neutral for name in others)


@PARAMETRIZED
def test_a_long_prompt_gets_the_length_that_is_left(route: Route, serve: Any) -> None:
    """The model has 256 positions."""
    client = serve(max_new_tokens=250)
    long = Route(
        route.path if route.body else f"/{'a ' * 100}".strip().replace(" ", "%20"),
        {key: [{"role": "user", "content": "a" * 200}] if key == "messages" else value if key == "stream" else "a" * 200
         for key, value in route.body.items()} if route.body else None,
    )  # fmt: skip
    params = params_of(client, long.send(client))
    assert params.max_tokens == 256 - (199 if route.body is None else 200)


def test_do_sample_decides_before_a_default(serve: Any) -> None:
    """TGI is greedy unless the request or a default samples; a default temperature of 0 is greedy everywhere."""
    client = serve(temperature=0.5)
    generate = ROUTES[2]
    assert params_of(client, generate.send(client, max_new_tokens=1)).temperature == 0.5
    assert params_of(client, generate.send(client, do_sample=False)).is_greedy
    assert params_of(client, ROUTES[0].send(client, do_sample=False)).is_greedy
    narrow = serve(top_k=5)
    params = params_of(narrow, generate.send(narrow))
    assert (params.temperature, params.top_k) == (1.0, 5)
    greedy = serve(temperature=0)
    for route in ROUTES:
        assert params_of(greedy, route.send(greedy)).is_greedy, route
    assert params_of(greedy, generate.send(greedy, do_sample=True)).temperature == 1.0
    assert params_of(greedy, ROUTES[0].send(greedy, do_sample=True)).temperature == 1.0


def test_beam_search_ignores_the_defaults_that_it_does_not_follow(serve: Any) -> None:
    client = serve(temperature=0.5, repetition_penalty=1.5, max_new_tokens=3)
    answer = client.post("/v1/completions", json={"prompt": "a", "use_beam_search": True, "n": 2})
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 2 * 3


def test_the_defaults_are_shown(serve: Any) -> None:
    """By `/v1/models`, `/api/show`, `/props` and the OpenAPI document. Another default changes the fingerprint."""
    client = serve(**VALUES)
    assert client.get("/v1/models").json()["data"][0]["generation_config"] == VALUES
    shown = client.post("/api/show", json={}).json()["parameters"].splitlines()
    assert {"temperature 0.5", "repeat_penalty 1.5", "num_predict 3"} <= {*shown}
    props = client.get("/props").json()["default_generation_settings"]["params"]
    assert (props["temperature"], props["min_p"], props["n_predict"]) == (0.5, 0.125, 3)
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    for name, field in (("CompletionRequest", "max_tokens"), ("TgiParameters", "max_new_tokens")):
        assert schemas[name]["properties"][field]["default"] == 3
        assert schemas[name]["properties"]["top_p"]["default"] == 0.75
    query = {item["name"]: item["schema"] for item in document["paths"]["/{prompt}"]["get"]["parameters"]}
    assert (query["temperature"]["default"], query["max_new_tokens"]["default"]) == (0.5, 3)
    completions = ROUTES[0]
    fingerprints = [completions.send(one).json()["system_fingerprint"] for one in (client, serve(), serve(top_k=1))]
    assert len({*fingerprints}) == 3
