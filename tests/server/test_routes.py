"""Models, tokens, probes, metrics, pages, the OpenAPI document, request ids and the log."""

from __future__ import annotations

import gzip
import io
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distilgpt2_api.observability.logs import build_formatter
from distilgpt2_api.text.chat_template import ChatTemplate

PROBES = ["/livez", "/readyz", "/healthz", "/health", "/ping"]


@pytest.mark.parametrize("path", [*PROBES, "/", "/version", "/v1/models", "/metrics", "/docs", "/openapi.json"])
def test_head_is_get_without_a_body(client: Any, path: str) -> None:
    assert client.request("HEAD", path).status_code == client.get(path).status_code == 200


def test_models_are_listed_and_described_by_each_name(client: Any) -> None:
    card = {
        "id": "organisation/tiny",
        "object": "model",
        "created": 1,
        "owned_by": "distilgpt2-api",
        "root": "organisation/tiny",
        "max_model_len": 256,
    }
    assert client.get("/v1/models").json() == {"object": "list", "data": [card]}
    assert client.get("/v1/models/organisation/tiny").json() == card
    assert client.get("/v1/models/tiny").json() == card | {"id": "tiny"}
    missing = client.get("/v1/models/other")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.reported("operators whose model folders have a snapshot's hash for a name, on several servers' forums")
def test_an_operator_chooses_the_names(open_client: Callable[..., Any]) -> None:
    client = open_client(model_name="0f1e2d", served_names=("stories", "distilgpt2"))
    listed = client.get("/v1/models").json()["data"]
    assert [(card["id"], card["root"]) for card in listed] == [("stories", "0f1e2d"), ("distilgpt2", "0f1e2d")]
    assert client.get("/v1/models/distilgpt2").json()["id"] == "distilgpt2"
    for path, name in (("/", "model"), ("/version", "model"), ("/info", "model_id")):
        assert client.get(path).json()[name] == "stories", path
    for model in ("stories", "distilgpt2", None):
        assert client.complete(prompt="a", max_tokens=1, model=model).json()["model"] == "stories"
    for path in ("/v1/models/0f1e2d", "/v1/models/tgi"):
        assert client.get(path).status_code == 404
    refused = client.complete(prompt="a", model="0f1e2d")
    assert refused.status_code == 404
    assert "'stories', 'distilgpt2'" in refused.json()["error"]["message"]


@pytest.mark.reported("users of vLLM and llama.cpp, whose clients and forms send -1 for a seed drawn at random")
@pytest.mark.parametrize("seed", [-1, -2, None])
def test_seed_minus_one_is_no_seed_in_any_protocol(
    open_client: Callable[..., Any], build_runner: Any, seed: int | None
) -> None:
    """The scene draws a 7. Other negative numbers are seeds, but not in TGI's protocol, which has none."""
    client = open_client(chat_template=ChatTemplate("a", origin="test"), runner=build_runner())
    expected = -2 if seed == -2 else 7
    bodies: dict[str, Any] = {
        "/v1/completions": {"prompt": "a", "max_tokens": 1, "seed": seed},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "seed": seed},
    }
    for path, body in bodies.items():
        assert client.post(path, json=body).status_code == 200
        assert client.scene.runner.plans[-1].rows[0].params.seed == expected, path
    if seed is not None:
        assert client.get(f"/a?max_new_tokens=1&seed={seed}").status_code == 200
        assert client.scene.runner.plans[-1].rows[0].params.seed == expected
    parameters = {"best_of": 2, "do_sample": True, "max_new_tokens": 1, "seed": seed}
    answer = client.post("/generate", json={"inputs": "a", "parameters": parameters})
    assert answer.status_code == (422 if seed == -2 else 200)


@pytest.mark.reported("InferenceClient, TGI's own client and @huggingface/inference, run unchanged against the server")
@pytest.mark.parametrize("name", ["tgi", "dummy", "", "http://localhost:8000", "https://models.example/v1"])
def test_clients_of_servers_with_one_model_need_no_name(client: Any, name: str) -> None:
    answer = client.complete(prompt="a", max_tokens=1, model=name)
    assert (answer.status_code, answer.json()["model"]) == (200, "organisation/tiny")
    assert client.post("/v1/score", json={"input": "ab", "model": name}).status_code == 200
    assert client.post("/tokenize", json={"prompt": "ab", "model": name}).status_code == 200


def test_tokenize_and_detokenize_are_inverse(client: Any) -> None:
    text = "né <|endoftext|>"
    answer = client.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert answer["tokens"] == [110, 195, 169, 32, 256]
    assert answer["token_strs"] == ["n", "bytes:\\xc3", "bytes:\\xa9", " ", "<|endoftext|>"]
    assert (answer["count"], answer["max_model_len"]) == (5, 256)
    assert client.post("/detokenize", json={"tokens": answer["tokens"]}).json() == {"prompt": text}
    assert client.post("/tokenize", json={"prompt": ""}).json()["tokens"] == []


def test_the_tokenizer_tells_its_special_tokens(client: Any) -> None:
    """As vLLM does; lm-evaluation-harness tokenizes them to learn their ids."""
    info = client.get("/tokenizer_info").json()
    assert info["bos_token"] == info["eos_token"] == "<|endoftext|>"
    assert (info["pad_token"], info["chat_template"], info["model_max_length"]) == (None, None, 256)
    request = {"prompt": info["eos_token"], "add_special_tokens": False}
    assert client.post("/tokenize", json=request).json()["tokens"] == [256]


def test_a_long_text_is_tokenized_like_a_short_one(client: Any) -> None:
    answer = client.post("/tokenize", json={"prompt": "a" * 20_000}).json()
    assert answer["count"] == 20_000


def test_the_version_names_model_precision_and_kernels(client: Any) -> None:
    expected = {"model": "organisation/tiny", "precision": "f32", "kernels": "script"}
    assert client.get("/version").json() == {"version": client.scene.app.version, **expected}


def test_crawlers_are_asked_to_stay_away(client: Any) -> None:
    assert client.get("/robots.txt").text == "User-agent: *\nDisallow: /\n"


def test_metrics_count_requests_by_route_and_tokens(client: Any) -> None:
    client.complete(prompt="secret prompt", max_tokens=5)
    client.get("/secret path")
    client.get("/v1/nothing")
    text = client.get("/metrics").text
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert "secret" not in text
    name = "distilgpt2_http_requests_total"
    assert samples[name, ("method", "POST"), ("route", "/v1/completions"), ("status", "200")] == 1
    assert samples[name, ("method", "GET"), ("route", "/{prompt}"), ("status", "200")] == 1
    assert samples[name, ("method", "GET"), ("route", "unmatched"), ("status", "404")] == 1
    assert samples["distilgpt2_completion_tokens_total",] == 5 + len(" hello world") + 1
    assert samples["distilgpt2_prompt_tokens_total",] == len("secret prompt") + len("secret path")
    assert samples["distilgpt2_time_to_first_token_seconds_count",] == 2
    assert samples["distilgpt2_running_sequences",] == 0
    info = {"version": client.scene.app.version, "model": "organisation/tiny", "precision": "f32"}
    assert samples["distilgpt2_service_info", *sorted(info.items())] == 1


def test_the_log_has_one_line_a_request_and_no_text(client: Any) -> None:
    client.complete(prompt="secret", max_tokens=3, user="somebody")
    [call] = client.scene.log.calls
    assert call.args == ("request",)
    entry = call.kwargs
    assert entry["route"] == "/v1/completions"
    assert (entry["method"], entry["status"], entry["finish_reason"]) == ("POST", 200, "length")
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (6, 3)
    assert entry.keys() >= {"request_id", "duration_ms", "queue_ms", "ttft_ms"}
    assert re.fullmatch(r"[0-9a-f]{16}", entry["user_hash"])
    assert not {"secret", "somebody"} & {str(value) for value in entry.values()}


@pytest.mark.parametrize("path", [*PROBES, "/metrics"])
def test_what_machines_ask_every_few_seconds_is_logged_at_debug(client: Any, path: str) -> None:
    client.get(path)
    assert [call.method_name for call in client.scene.log.calls] == ["debug"]


def test_every_answer_has_a_request_id_the_callers_if_it_is_sane(client: Any) -> None:
    for path in ("/", "/v1/models", "/v1/nothing", "/once?top_k=x"):
        assert client.get(path, headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for unfit in ("", "a b", "x" * 129, "<script>", "a\tb"):
        assert re.fullmatch("[0-9a-f]{32}", client.get("/", headers={"x-request-id": unfit}).headers["x-request-id"])


def test_a_mistake_of_ours_is_a_500_that_tells_nothing(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(client.scene.app.state.service.model.__class__, "check_name", fail)
    answer = client.complete(prompt="a")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"]
    assert [call.method_name for call in client.scene.log.calls] == ["exception", "info"]


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_mistake_that_holds_the_prompt_shows_it_to_nobody(
    open_client: Callable[..., Any], build_runner: Any, is_stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first token, or in the middle of a stream."""
    prompt = "my secret " + "prompt"  # In two parts: a traceback shows lines of code.
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(build_formatter(is_json=True))
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])

    def fail(plan: Any) -> None:
        if len(runner.plans) > 3:
            raise KeyError(prompt)

    runner = build_runner(on_run=fail)
    client = open_client(runner=runner)
    answer = client.complete(prompt=prompt, stream=is_stream)
    assert "engine_failed" in answer.text
    assert "KeyError" in log.getvalue()
    assert prompt not in answer.text + log.getvalue() + str(client.scene.log.calls)


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_pages_need_nothing_from_elsewhere(client: Any, page: str) -> None:
    shown = client.get(page)
    html = shown.text
    assert "//" not in html.replace("<!doctype", "")
    assert "<script>" not in html
    policy = dict(rule.split(" ", 1) for rule in shown.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    for asset in re.findall(r'(?:src|href)="(docs/assets/[^"]+)"', html):
        answer = client.get(f"/{asset}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(("text/css", "text/javascript"))
        plain = client.get(f"/{asset}", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == answer.content


def test_the_vendored_pages_load_nothing_from_a_cdn(static_folder: Path) -> None:
    for archive in static_folder.glob("*.gz"):
        assert b"https://cdn" not in gzip.decompress(archive.read_bytes())


def test_only_the_pages_own_assets_are_served(client: Any) -> None:
    for name in ("README.md", "..%2F..%2Fapp.py", "swagger.html", "licenses"):
        assert client.get(f"/docs/assets/{name}").status_code == 404


def test_the_openapi_document_tells_the_truth_about_bodies_and_errors(client: Any) -> None:
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
    assert with_422 == {"/", "/generate", "/generate_stream", "/info"}, "TGI's routes only"
    parameters = document["paths"]["/{prompt}"]["get"]["parameters"]
    assert [parameter["name"] for parameter in parameters][:3] == ["prompt", "max_new_tokens", "num_return_sequences"]
    assert all("head" not in path_item for path_item in document["paths"].values())


def test_the_openapi_document_has_the_settings_limits(open_client: Callable[..., Any]) -> None:
    document = open_client(max_n=3, max_logprobs=2, max_stop_sequences=1).get("/openapi.json").json()
    properties = document["components"]["schemas"]["CompletionRequest"]["properties"]
    maxima = [properties[name]["anyOf"][0]["maximum"] for name in ("n", "best_of", "logprobs")]
    assert maxima == [3, 3, 2]
    assert [choice["maxItems"] for choice in properties["stop"]["anyOf"] if choice["type"] == "array"] == [1]
    parameters = {one["name"]: one["schema"] for one in document["paths"]["/{prompt}"]["get"]["parameters"]}
    assert parameters["num_return_sequences"]["maximum"] == 3


def test_links_in_the_document_follow_a_proxys_prefix(open_client: Callable[..., Any]) -> None:
    """The pages name everything relatively; the document says where the service lies."""
    client = open_client(root_path="/base")
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/base"}]
