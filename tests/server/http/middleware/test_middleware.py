"""Request ids, the log line, the HTTP metrics and unexpected errors."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distilgpt2_api.observability.logs import build_formatter

PROBES = ["/livez", "/readyz", "/healthz", "/health", "/ping"]


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
    name = "organisation/tiny"
    info = {"version": client.scene.app.version, "model": name, "served_names": name, "precision": "f32"}
    assert samples["distilgpt2_service_info", *sorted(info.items())] == 1


def test_the_log_has_one_line_per_request_and_no_text(client: Any) -> None:
    client.complete(prompt="secret", max_tokens=3, user="alice")
    [call] = client.scene.log.calls
    assert call.args == ("request",)
    entry = call.kwargs
    assert entry["route"] == "/v1/completions"
    assert (entry["method"], entry["status"], entry["finish_reason"]) == ("POST", 200, "length")
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (6, 3)
    assert entry.keys() >= {"request_id", "duration_ms", "queue_ms", "ttft_ms"}
    assert re.fullmatch(r"[0-9a-f]{16}", entry["user_hash"])
    assert not {"secret", "alice"} & {str(value) for value in entry.values()}


@pytest.mark.reported("a newcomer: the console's log had status=<HTTPStatus.UNAUTHORIZED: 401>")
@pytest.mark.parametrize(
    ("path", "content_type", "status"),
    [
        ("/v1/completions", "text/plain", 415),
        ("/v1/nothing", "application/json", 404),
        ("/generate", "text/plain", 415),
    ],
)
def test_the_log_has_the_status_as_a_number(client: Any, path: str, content_type: str, status: int) -> None:
    assert client.post(path, content=b"{}", headers={"content-type": content_type}).status_code == status
    [call] = client.scene.log.calls
    assert repr(call.kwargs["status"]) == str(status)


@pytest.mark.parametrize("path", [*PROBES, "/metrics"])
def test_probes_and_scrapes_are_logged_at_debug(client: Any, path: str) -> None:
    client.get(path)
    assert [call.method_name for call in client.scene.log.calls] == ["debug"]


def test_every_response_has_a_request_id_the_clients_if_it_is_valid(client: Any) -> None:
    for path in ("/", "/v1/models", "/v1/nothing", "/once?top_k=x"):
        assert client.get(path, headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for invalid in ("", "a b", "x" * 129, "<script>", "a\tb"):
        assert re.fullmatch("[0-9a-f]{32}", client.get("/", headers={"x-request-id": invalid}).headers["x-request-id"])


def test_an_internal_error_is_a_500_without_details(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_an_internal_error_with_the_prompt_does_not_reveal_it(
    open_client: Callable[..., Any], build_runner: Any, is_stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first token, and midway in a stream."""
    prompt = "my secret " + "prompt"  # in two parts, since a traceback shows source lines
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
