"""`/completion`, `/props` and `/slots`, as clients of llama.cpp's server use them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

Json = dict[str, Any]

TIMINGS = {
    *("queue_ms", "cache_n", "prompt_n", "prompt_ms", "prompt_per_token_ms", "prompt_per_second", "predicted_n"),
    *("predicted_ms", "predicted_per_token_ms", "predicted_per_second"),
}
FIELDS = {
    *("index", "content", "tokens", "id_slot", "stop", "model", "tokens_predicted", "tokens_evaluated", "prompt"),
    *("generation_settings", "has_new_line", "truncated", "stop_type", "stopping_word", "tokens_cached", "timings"),
}


def complete(client: Any, **body: Any) -> Any:
    answer = client.post("/completion", json={"prompt": "a", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def stream(client: Any, **body: Any) -> list[Json]:
    answer = client.post("/completion", json={"prompt": "a", "stream": True, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events.pop() == ""
    return [json.loads(event.removeprefix("data: ")) for event in events]


def params_of(client: Any) -> SamplingParams:
    params: SamplingParams = client.scene.runner.plans[-1].rows[0].params
    return params


# ---- answers


def test_a_completion(client: Any) -> None:
    answer = complete(client, prompt="ab", n_predict=6)
    assert answer.keys() == FIELDS
    assert (answer["content"], answer["prompt"], answer["tokens"]) == (" hello", "ab", [])
    assert (answer["stop"], answer["stop_type"], answer["stopping_word"]) == (True, "limit", "")
    assert (answer["tokens_evaluated"], answer["tokens_predicted"], answer["truncated"]) == (2, 6, False)
    assert answer["timings"].keys() == TIMINGS
    assert (answer["timings"]["prompt_n"], answer["timings"]["predicted_n"]) == (2, 6)


def test_a_stream_has_pieces_and_one_end(client: Any) -> None:
    *chunks, end = stream(client, prompt="ab")
    assert "".join(chunk["content"] for chunk in chunks) == " hello world"
    assert bytes(token_id for chunk in chunks for token_id in chunk["tokens"]) == b" hello world"
    assert not any(chunk["stop"] or "timings" in chunk for chunk in chunks)
    assert end.keys() == FIELDS
    assert (end["content"], end["tokens"], end["stop_type"]) == ("", [], "eos")
    assert (end["tokens_evaluated"], end["timings"]["predicted_n"]) == (2, 13)


def test_each_event_may_have_timings(client: Any) -> None:
    *chunks, end = stream(client, timings_per_token=True)
    assert all(chunk["timings"].keys() == TIMINGS for chunk in chunks)
    assert [chunk["timings"]["predicted_n"] for chunk in chunks] == [chunk["tokens_predicted"] for chunk in chunks]
    times = [chunk["timings"]["predicted_ms"] for chunk in chunks]
    assert times == sorted(times)
    assert end["generation_settings"]["timings_per_token"] is True


def test_a_stream_may_begin_with_the_progress_of_the_prompt(client: Any) -> None:
    chunks = [event for event in stream(client, prompt=["abc", "de"], return_progress=True) if not event["stop"]]
    for index, num_tokens in enumerate([3, 2]):
        first, *others = [chunk for chunk in chunks if chunk["index"] == index]
        progress = first["prompt_progress"]
        assert (progress["total"], progress["processed"], progress["cache"]) == (num_tokens, num_tokens, 0)
        assert progress["time_ms"] > 0
        assert not any("prompt_progress" in chunk for chunk in others)


def test_ends(open_client: Callable[..., Any], build_runner: Any) -> None:
    client = open_client(runner=build_runner(script=b"one\ntwo" + b"x" * 300))
    word = complete(client, stop=["two", "zzz"])
    assert (word["content"], word["stop_type"], word["stopping_word"], word["has_new_line"]) == (
        *("one\n", "word", "two"),
        True,
    )
    full = complete(client)
    assert (full["tokens_predicted"], full["stop_type"], full["truncated"]) == (255, "limit", True)
    assert complete(client, n_predict=255)["truncated"] is False
    assert complete(client, n_predict=1000)["truncated"] is True
    none = complete(client, n_predict=0)
    assert (none["content"], none["tokens_predicted"], none["stop_type"]) == ("", 0, "limit")


def test_probabilities(client: Any) -> None:
    answer = complete(client, n_probs=3, n_predict=2, return_tokens=True)
    assert bytes(answer["tokens"]) == b" h"
    first, second = answer["completion_probabilities"]
    assert (first["id"], first["token"], first["bytes"], round(first["logprob"], 2)) == (32, " ", [32], -0.32)
    assert [token["id"] for token in second["top_logprobs"]] == [0, 1, 2]
    *chunks, end = stream(client, n_probs=3, n_predict=2)
    assert [token["id"] for chunk in chunks for token in chunk["completion_probabilities"]] == [32, 104]
    assert "completion_probabilities" not in end


def test_settings_are_those_of_the_request(client: Any) -> None:
    settings = complete(client, seed=42, temperature=0.5, stop=["x"], ignore_eos=True, n_predict=3)[
        "generation_settings"
    ]
    assert (settings["seed"], settings["temperature"], settings["stop"]) == (42, 0.5, ["x"])
    assert (settings["ignore_eos"], settings["n_predict"], settings["n_ctx"]) == (True, 3, 256)
    assert complete(client)["generation_settings"]["n_predict"] == -1


def test_only_the_named_fields_are_returned(client: Any) -> None:
    fields = ["content", "generation_settings/n_predict", "timings/predicted_n", "nothing", "content/x"]
    answer = complete(client, n_predict=6, response_fields=fields)
    assert answer == {"content": " hello", "generation_settings/n_predict": 6, "timings/predicted_n": 6}
    assert complete(client, response_fields=[]).keys() == FIELDS


def test_several_completions_are_a_list(client: Any) -> None:
    answers = complete(client, prompt=["ab", "c"], n_cmpl=2, seed=5)
    assert [(answer["index"], answer["prompt"]) for answer in answers] == [(0, "ab"), (1, "ab"), (2, "c"), (3, "c")]
    assert answers[0]["generation_settings"]["seed"] == 5
    assert answers[1]["generation_settings"]["seed"] != 5
    ends = [event for event in stream(client, prompt=["ab", "c"]) if event["stop"]]
    assert sorted(end["index"] for end in ends) == [0, 1]


# ---- prompts


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("ab", ["ab"]),
        ([97, 98], ["ab"]),
        ([97, "bc", 100, "e"], ["abcde"]),
        (["b", 97], ["ba"]),
        ({"prompt_string": "ab"}, ["ab"]),
        ({"prompt_string": "ab", "multimodal_data": []}, ["ab"]),
        (["ab", "c"], ["ab", "c"]),
        (["ab"], ["ab"]),
        ([[97, 98], "c", {"prompt_string": "d"}, ["e", 102]], ["ab", "c", "d", "ef"]),
    ],
    ids=str,
)
def test_forms_of_a_prompt(client: Any, prompt: object, texts: list[str]) -> None:
    answer = complete(client, prompt=prompt, n_predict=1)
    answers = answer if isinstance(answer, list) else [answer]
    assert [one["prompt"] for one in answers] == texts


# ---- parameters


def test_without_parameters_the_engine_gets_llama_cpps_defaults(client: Any) -> None:
    complete(client)
    params = params_of(client)
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (0.8, 40, 0.95, 0.05)
    assert (params.repetition_penalty, params.seed, params.max_tokens) == (1.0, 7, 255)


def test_parameters_reach_the_engine(client: Any) -> None:
    body = {"temperature": 0.5, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.7, "seed": 42}
    body |= {"repeat_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.4, "ignore_eos": True}
    complete(client, n_predict=3, **body)
    params = params_of(client)
    for name, value in body.items():
        assert getattr(params, {"repeat_penalty": "repetition_penalty"}.get(name, name)) == value, name
    assert params.max_tokens == 3
    complete(client, max_tokens=4, n=1)
    assert params_of(client).max_tokens == 4


@pytest.mark.parametrize(
    ("logit_bias", "biases", "banned"),
    [
        ([[97, 1.5], [98, -2]], {97: 1.5, 98: -2.0}, []),
        ([["ab", 1]], {97: 1.0, 98: 1.0}, []),
        ({"97": 1, "b": -1}, {97: 1.0, 98: -1.0}, []),
        ([[97, False], ["ab", False]], {}, [97, 98]),
        ([], {}, []),
    ],
    ids=str,
)
def test_biases(client: Any, logit_bias: object, biases: dict[int, float], banned: list[int]) -> None:
    settings = complete(client, logit_bias=logit_bias, n_predict=1)["generation_settings"]
    params = params_of(client)
    assert dict(params.logit_bias) == biases
    assert params.bad_words == tuple((token_id,) for token_id in banned)
    assert [entry["token"] for entry in settings["logit_bias"]] == [*biases, *banned]


def test_ignore_eos_bans_the_end_of_text(client: Any) -> None:
    """As in llama.cpp, which lists it among the biases."""
    settings = complete(client, ignore_eos=True, n_predict=20)["generation_settings"]
    assert settings["logit_bias"] == [{"token": 256, "bias": None}]
    assert params_of(client).bad_words == ((256,),)


def test_a_json_schema_constrains_the_completion(open_client: Callable[..., Any], build_runner: Any) -> None:
    client = open_client(runner=build_runner(script=b'{"a": 1}'))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    for json_schema in (schema, {}):
        assert json.loads(complete(client, json_schema=json_schema)["content"]) == {"a": 1}
        assert params_of(client).grammar is not None


def test_a_grammar_constrains_the_completion(client: Any) -> None:
    assert complete(client, grammar='root ::= " hello" (" " [a-z]+)?')["content"] == " hello world"
    assert params_of(client).grammar is not None
    complete(client, grammar="")
    assert params_of(client).grammar is None


@pytest.mark.parametrize("body", [{"id_slot": 3}, {"id_slot": -1}, {"cache_prompt": False}, {"cache_prompt": True}])
def test_slots_and_the_cache_change_no_answer(client: Any, body: Json) -> None:
    answer = complete(client, **body)
    assert (answer["content"], answer["id_slot"]) == (" hello world", body.get("id_slot", -1))


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [""]}, "prompt"),
        ({"prompt": [257]}, "prompt"),
        ({"prompt": [-1, "a"]}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [97, None]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": {"prompt_string": "a", "x": 1}}, "prompt"),
        ({"prompt": {"prompt_string": "a", "multimodal_data": ["aGk="]}}, "multimodal_data"),
        ({"prompt": ["a"] * 9}, "prompt"),
        ({"n_predict": -2}, "n_predict"),
        ({"n_predict": "5"}, "n_predict"),
        ({"n_predict": 5, "max_tokens": 6}, "max_tokens"),
        ({"n_cmpl": 5}, "n_cmpl"),
        ({"n_probs": 6}, "n_probs"),
        ({"temperature": -1}, "temperature"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"logit_bias": [[97]]}, "logit_bias"),
        ({"logit_bias": [[97, True]]}, "logit_bias"),
        ({"logit_bias": [[97, 101]]}, "logit_bias"),
        ({"logit_bias": [[257, 1]]}, "logit_bias"),
        ({"logit_bias": [[1.5, 1]]}, "logit_bias"),
        ({"logit_bias": [["a" * 9000, 1]]}, "logit_bias"),
        ({"logit_bias": {"": 1}}, "logit_bias"),
        ({"logit_bias": {"97": "x"}}, "logit_bias"),
        ({"logit_bias": "x"}, "logit_bias"),
        ({"json_schema": {"type": "nonsense"}}, "json_schema"),
        ({"json_schema": "{}"}, "json_schema"),
        ({"grammar": "root ::= missing"}, "grammar"),
        ({"grammar": 'root ::= "a"', "json_schema": {}}, "grammar"),
        ({"samplers": ["top_k"]}, "samplers"),
        ({"post_sampling_probs": True}, "post_sampling_probs"),
        ({"lora": [{"id": 0, "scale": 1}]}, "lora"),
        ({"t_max_predict_ms": 100}, "t_max_predict_ms"),
        ({"n_keep": 5}, "n_keep"),
        ({"id_slot": -2}, "id_slot"),
        ({"response_fields": ["a"] * 65}, "response_fields"),
        ({"guided_json": {}}, "use `json_schema`"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_by_name(client: Any, body: Json, name: str) -> None:
    answer = client.post("/completion", json={"prompt": "a", **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == (400, "invalid_request_error")
    assert name in error["message"]
    assert client.scene.runner.plans == []


def test_a_prompt_that_does_not_fit_has_llama_cpps_error(client: Any) -> None:
    error = client.post("/completion", json={"prompt": "a" * 256}).json()["error"]
    assert error == {
        "code": 400,
        "message": "prompt: request (256 tokens) exceeds the available context size (256 tokens), try shortening it",
        "type": "exceed_context_size_error",
    }
    unknown = client.post("/completion", json={"prompt": "a", "model": "other"})
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize(
    ("method", "path", "advice"),
    [
        ("POST", "/embedding", "/v1/score"),
        ("POST", "/embeddings", "/v1/score"),
        ("POST", "/rerank", "/v1/score"),
        ("POST", "/reranking", "/v1/score"),
        ("POST", "/infill", "/completion"),
        ("GET", "/lora-adapters", "merge"),
        ("POST", "/apply-template", "/v1/chat/completions"),
    ],
)
def test_routes_that_are_missing_say_what_to_do_instead(client: Any, method: str, path: str, advice: str) -> None:
    answer = client.request(method, path, json={} if method == "POST" else None)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"
    assert advice in answer.json()["error"]["message"]


# ---- the service


def test_props(client: Any, open_client: Callable[..., Any]) -> None:
    props = client.get("/props").json()
    defaults = props["default_generation_settings"]
    assert (defaults["n_ctx"], defaults["params"]["temperature"], defaults["params"]["seed"]) == (256, 0.8, -1)
    assert (props["total_slots"], props["model_alias"], props["chat_template"]) == (8, "organisation/tiny", "")
    assert (props["eos_token"], props["modalities"]) == ("<|endoftext|>", {"vision": False, "audio": False})
    template = "{{ messages[0].content }}"
    with_template = open_client(chat_template=ChatTemplate(template, origin="test"))
    assert with_template.get("/props").json()["chat_template"] == template
    settings = complete(client)["generation_settings"]
    assert {name: settings[name] for name in defaults["params"]} == defaults["params"] | {"seed": 7}
    assert client.post("/props", json={}).status_code == 405
    assert client.get("/props?model=tiny&autoload=false").json() == props
    assert client.get("/props?model=other").json()["error"]["type"] == "not_found_error"


def test_slots_are_busy_while_sequences_are_in_flight(
    open_client: Callable[..., Any], build_runner: Any, build_call: Any
) -> None:
    client = open_client(runner=build_runner(is_gated=True))
    assert client.get("/slots").json() == [{"id": index, "n_ctx": 256, "is_processing": False} for index in range(8)]

    async def play() -> tuple[list[Json], int]:
        body = json.dumps({"prompt": ["a", "b"], "n_cmpl": 4}).encode()
        headers = [(b"content-type", b"application/json")]
        call = build_call(client.scene.app, "/completion", "POST", body, headers=headers)
        loop, running = asyncio.get_running_loop(), asyncio.Event()
        client.scene.runner.on_run = lambda _plan: loop.call_soon_threadsafe(running.set)
        task = asyncio.create_task(call.run())
        client.scene.runner.gate.release()
        await asyncio.wait_for(running.wait(), 10)
        busy = build_call(client.scene.app, "/slots")
        await busy.run()
        full = build_call(client.scene.app, "/slots", query=b"fail_on_no_slot=1")
        await full.run()
        client.scene.runner.open_gate()
        await asyncio.wait_for(task, 10)
        return json.loads(busy.text), full.status

    slots, status = client.runner.run(play())
    assert [slot["is_processing"] for slot in slots] == [True] * 8
    assert status == 503
    assert client.get("/slots?fail_on_no_slot=1").status_code == 200


def test_a_client_that_hangs_up_aborts_the_completion(
    open_client: Callable[..., Any], build_runner: Any, hang_up: Callable[..., Any]
) -> None:
    client = open_client(runner=build_runner(is_gated=True))
    hang_up(client, "/completion", prompt="a", stream=True)
