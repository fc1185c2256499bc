"""The samplers against loops, in each protocol that has them: from the body to the engine, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.params import PLAIN_PARAMETERS, SAMPLERS, SamplingParams
from distilgpt2_api.core.sampling_defaults import SamplingDefaults
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

Json = dict[str, Any]

VALUES: Json = {
    "dry_multiplier": 0.8,
    "dry_base": 1.5,
    "dry_allowed_length": 3,
    "dry_penalty_last_n": 100,
    "dry_sequence_breakers": ["\n", "é", "!?"],
    "repeat_last_n": 33,
    "top_n_sigma": 1.5,
    "dynatemp_range": 0.5,
    "dynatemp_exponent": 2.0,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.2,
    "mirostat": 2,
    "mirostat_tau": 4.0,
    "mirostat_eta": 0.2,
}
MESSAGES = [{"role": "user", "content": "hi"}]
Send = Callable[[Json], Any]
PATHS = ("/v1/completions", "/v1/chat/completions", "/api/generate", "/api/chat", "/completion")
PARAMETRIZED = pytest.mark.parametrize("path", PATHS)


def send(client: Any, path: str, parameters: Json) -> Any:
    body: Json = {"messages": MESSAGES} if "chat" in path else {"prompt": "a"}
    length = {"/completion": "n_predict", "/v1/completions": "max_tokens", "/v1/chat/completions": "max_tokens"}
    if path.startswith("/api/"):
        return client.post(path, json={**body, "stream": False, "options": {"num_predict": 1, **parameters}})
    return client.post(path, json={**body, length[path]: 1, **parameters})


@pytest.fixture
def client(open_client: Callable[..., Any]) -> Any:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", origin="test")
    return open_client(chat_template=template)


def params_of(client: Any, answer: Any) -> SamplingParams:
    assert answer.status_code == 200, answer.text
    params: SamplingParams = client.scene.runner.plans[-1].rows[0].params
    return params


def refusal_of(answer: Any) -> str:
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    return str(error["message"] if isinstance(error, dict) else error)


@PARAMETRIZED
def test_samplers_reach_the_engine(client: Any, path: str) -> None:
    params = params_of(client, send(client, path, VALUES))
    for name, value in VALUES.items():
        assert getattr(params, name) == (tuple(value) if isinstance(value, list) else value), name


@PARAMETRIZED
def test_null_means_the_default(client: Any, path: str) -> None:
    params = params_of(client, send(client, path, dict.fromkeys(VALUES)))
    for name in VALUES:
        default = getattr(SamplingParams(), name)
        is_llama_cpps = name == "repeat_last_n" and not path.startswith("/v1/")
        assert getattr(params, name) == (64 if is_llama_cpps else default), name


@PARAMETRIZED
@pytest.mark.parametrize(
    ("parameters", "bound"),
    [
        ({"dry_multiplier": -0.1}, "greater than or equal to 0"),
        ({"dry_multiplier": 100.5}, "less than or equal to 100"),
        ({"dry_base": 0.5}, "greater than or equal to 1"),
        ({"dry_allowed_length": 0}, "greater than or equal to 1"),
        ({"dry_penalty_last_n": -2}, "greater than or equal to -1"),
        ({"dry_sequence_breakers": "x"}, "valid list"),
        ({"dry_sequence_breakers": [""]}, "at least 1 character"),
        ({"dry_sequence_breakers": ["x" * 41]}, "at most 40 characters"),
        ({"dry_sequence_breakers": ["x"] * 33}, "at most 32 items"),
        ({"dry_sequence_breakers": ["é" * 40] * 7, "dry_multiplier": 1}, "the maximum is 512"),
        ({"repeat_last_n": -2}, "greater than or equal to -1"),
        ({"repeat_last_n": 1.5}, "integer"),
        ({"top_n_sigma": 101}, "less than or equal to 100"),
        ({"dynatemp_range": 3}, "less than or equal to 2"),
        ({"dynatemp_exponent": -1}, "greater than or equal to 0"),
        ({"xtc_probability": 1.5}, "less than or equal to 1"),
        ({"xtc_threshold": -0.1}, "greater than or equal to 0"),
        ({"mirostat": 1}, "it must be 0 or 2"),
        ({"mirostat": 3}, "less than or equal to 2"),
        ({"mirostat": True}, "integer"),
        ({"mirostat_tau": -1}, "greater than or equal to 0"),
        ({"mirostat_eta": 1.1}, "less than or equal to 1"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_with_its_name_and_bound(client: Any, path: str, parameters: Json, bound: str) -> None:
    message = refusal_of(send(client, path, parameters))
    assert next(iter(parameters)) in message
    assert bound in message


@pytest.mark.parametrize("path", ["/api/generate", "/completion"])
def test_mirostat_turns_off_the_filters_that_a_request_leaves_out(client: Any, path: str) -> None:
    """As in llama.cpp and Ollama. Filters that the request has apply before mirostat, so none is ignored."""
    params = params_of(client, send(client, path, {"mirostat": 2}))
    assert (params.top_k, params.top_p, params.min_p, params.temperature) == (0, 1.0, 0.0, 0.8)
    params = params_of(client, send(client, path, {"mirostat": 2, "top_k": 40, "xtc_probability": 0.5}))
    assert (params.top_k, params.top_p, params.xtc_probability) == (40, 1.0, 0.5)


def test_mirostat_turns_off_the_services_default_filters(open_client: Callable[..., Any]) -> None:
    client = open_client(
        sampling_defaults=SamplingDefaults.parse({"top_p": 0.5, "top_n_sigma": 1, "dry_multiplier": 0.8})
    )
    params = params_of(client, send(client, "/v1/completions", {"mirostat": 2}))
    assert (params.top_p, params.top_n_sigma, params.dry_multiplier) == (1.0, -1.0, 0.8)
    assert params_of(client, send(client, "/v1/completions", {})).top_p == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, value in VALUES.items() if name != "dry_sequence_breakers"],
)
def test_beam_search_refuses_samplers_by_name(client: Any, name: str, value: object) -> None:
    body = {"prompt": "a", "max_tokens": 1, "use_beam_search": True, "n": 2, name: value}
    assert name in refusal_of(client.post("/v1/completions", json=body))


def test_every_sequence_of_a_request_has_its_own_mirostat(client: Any) -> None:
    answer = client.post("/v1/completions", json={"prompt": "a", "max_tokens": 5, "n": 3, "mirostat": 2})
    assert answer.status_code == 200
    assert len(answer.json()["choices"]) == 3
    rows = [row for plan in client.scene.runner.plans for row in plan.rows if row.is_sampling]
    assert all(row.mirostat_mu is not None for row in rows)


def test_llama_cpp_reports_the_samplers(client: Any) -> None:
    settings = send(client, "/completion", VALUES).json()["generation_settings"]
    assert {name: settings[name] for name in VALUES} == VALUES
    assert settings["samplers"] == list(SAMPLERS)


def test_every_sampler_is_in_the_order() -> None:
    """All plain parameters that change what is sampled, except bans, each in one sampler."""
    listed = [name for names in SAMPLERS.values() for name in names]
    others = {"min_tokens", "no_repeat_ngram_size", "include_stop_str_in_output", "ignore_eos", "skip_special_tokens"}
    assert sorted(listed) == sorted(PLAIN_PARAMETERS.keys() - others)
