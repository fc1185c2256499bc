"""Hugging Face's TGI: answers, streams, and the rules across its parameters."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.scripted_runner import ScriptedRunner

from distilgpt2_api.core.plan import PlanRow, RowResult
from distilgpt2_api.core.seeds import sequence_seed

Json = dict[str, Any]
TEXT = " hello world"
END = "<|endoftext|>"


def generate(client: Any, inputs: str = "ab", **parameters: Any) -> Json:
    answer = client.post("/generate", json={"inputs": inputs, "parameters": parameters})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def stream(client: Any, inputs: str = "ab", **parameters: Any) -> list[Json]:
    answer = client.post("/generate_stream", json={"inputs": inputs, "parameters": parameters})
    assert answer.status_code == 200, answer.text
    *events, last = answer.text.split("\n\n")
    assert last == ""
    return [json.loads(event.removeprefix("data:")) for event in events]


def refusal(client: Any, path: str = "/generate", **body: Any) -> str:
    """The message of a 422."""
    answer = client.post(path, json={"inputs": "ab", **body})
    assert answer.status_code == 422, answer.text
    error = answer.json()
    assert error.keys() == {"error", "error_type"}
    assert error["error_type"] == "validation"
    return str(error["error"])


def shown(tokens: list[Json]) -> str:
    return "".join(token["text"] for token in tokens if not token["special"])


def params_of(client: Any) -> Any:
    return client.scene.runner.plans[-1].rows[0].params


# ---- whole answers


def test_the_answer_is_one_object_or_at_the_root_a_list_of_it(client: Any) -> None:
    body = {"inputs": "ab"}
    assert client.post("/generate", json=body).json() == {"generated_text": TEXT}
    assert client.post("/", json=body).json() == [{"generated_text": TEXT}]
    assert client.post("/", json={**body, "stream": False}).json() == [{"generated_text": TEXT}]


@pytest.mark.parametrize("path", ["/", "/generate"])
def test_null_is_the_default_for_every_parameter(client: Any, path: str) -> None:
    names = client.get("/openapi.json").json()["components"]["schemas"]["TgiParameters"]["properties"]
    body = {"inputs": "ab", "parameters": dict.fromkeys(names), "stream": None}
    assert client.post(path, json=body).status_code == 200
    assert client.post(path, json={"inputs": "ab", "parameters": None}).status_code == 200


def test_the_full_text_begins_with_the_prompt(client: Any) -> None:
    """The whole prompt, even if it was truncated. In a stream it is in the last event's text."""
    assert generate(client, "abc", return_full_text=True)["generated_text"] == "abc" + TEXT
    assert generate(client, "abc", return_full_text=True, truncate=1)["generated_text"] == "abc" + TEXT
    events = stream(client, "abc", return_full_text=True)
    assert events[-1]["generated_text"] == "abc" + TEXT
    assert shown([event["token"] for event in events]) == TEXT


def test_details_have_every_token(client: Any) -> None:
    details = generate(client, details=True)["details"]
    assert details["finish_reason"] == "eos_token"
    assert details["generated_tokens"] == len(details["tokens"]) == len(TEXT) + 1
    assert (details["prefill"], details["seed"]) == ([], None)
    assert "best_of_sequences" not in details
    assert "top_tokens" not in details
    assert details["tokens"][0] == {"id": 32, "text": " ", "logprob": -0.32, "special": False}
    assert details["tokens"][-1] == {"id": 256, "text": END, "logprob": -2.56, "special": True}
    assert shown(details["tokens"]) == TEXT


def test_the_prompts_tokens_come_with_their_log_probabilities(client: Any) -> None:
    """The first has none. They imply details. Of a truncated prompt only the used tokens are listed."""
    prefill = [{"id": 98, "text": "b", "logprob": None}, {"id": 99, "text": "c", "logprob": -0.99}]
    for parameters in ({}, {"details": True}):
        answer = generate(client, "abc", decoder_input_details=True, truncate=2, **parameters)
        assert answer["details"]["prefill"] == prefill


def test_the_likeliest_tokens_are_listed_for_each_token(client: Any) -> None:
    top = [{"id": id_, "text": chr(id_), "logprob": -id_ / 100, "special": False} for id_ in (0, 1)]
    details = generate(client, details=True, top_n_tokens=2, max_new_tokens=3)["details"]
    assert details["top_tokens"] == [top] * 3
    assert [event["top_tokens"] for event in stream(client, top_n_tokens=2, max_new_tokens=3)] == [top] * 3
    assert "top_tokens" not in stream(client, top_n_tokens=0)[0]


class SeededRunner(ScriptedRunner):
    """The sequence with `LIKELY_SEED` samples likelier bytes than any other."""

    def draw(self, row: PlanRow) -> RowResult:
        self.script = b"b" if row.seed == LIKELY_SEED else b"c"
        return super().draw(row)


LIKELY_SEED = sequence_seed(7, 1)


def test_best_of_answers_the_likeliest_and_lists_the_others(open_client: Callable[..., Any]) -> None:
    """Each with the seed that samples it alone."""
    runner = SeededRunner()
    client = open_client(runner=runner)
    answer = generate(client, best_of=3, do_sample=True, details=True, decoder_input_details=True)
    details = answer["details"]
    assert answer["generated_text"] == "b"
    assert details["seed"] == LIKELY_SEED
    others = details["best_of_sequences"]
    assert [other["generated_text"] for other in others] == ["c", "c"]
    assert [other["seed"] for other in others] == [sequence_seed(7, 0), sequence_seed(7, 2)]
    for sequence in (details, *others):
        assert sequence["finish_reason"] == "eos_token"
        assert sequence["generated_tokens"] == 2
        assert shown(sequence["tokens"]) == sequence.get("generated_text", "b")
        assert [token["id"] for token in sequence["prefill"]] == [*b"ab"]
    assert generate(client, best_of=3, do_sample=True) == {"generated_text": "b"}
    assert generate(client, seed=LIKELY_SEED, do_sample=True) == {"generated_text": "b"}


@pytest.mark.parametrize(
    ("parameters", "finish_reason", "text"),
    [
        ({}, "eos_token", TEXT),
        ({"max_new_tokens": 3}, "length", " he"),
        ({"stop": ["zz", "o w"]}, "stop_sequence", " hello w"),
    ],
)
def test_the_finish_reason_and_the_text_up_to_it(client: Any, parameters: Json, finish_reason: str, text: str) -> None:
    """The stop sequence is part of the text, as it is in TGI."""
    answer = generate(client, details=True, **parameters)
    assert (answer["generated_text"], answer["details"]["finish_reason"]) == (text, finish_reason)
    last = stream(client, details=True, **parameters)[-1]
    assert (last["generated_text"], last["details"]["finish_reason"]) == (text, finish_reason)


# ---- streams


def test_a_stream_has_an_event_for_each_token_and_the_whole_in_the_last(client: Any) -> None:
    events = stream(client, details=True, seed=3, do_sample=True)
    assert [event["index"] for event in events] == list(range(1, len(TEXT) + 2))
    assert shown([event["token"] for event in events]) == TEXT
    assert events[0] == {
        "index": 1,
        "token": {"id": 32, "text": " ", "logprob": -0.32, "special": False},
        "generated_text": None,
        "details": None,
    }
    for event in events[:-1]:
        assert (event["generated_text"], event["details"]) == (None, None)
    assert events[-1]["token"] == {"id": 256, "text": END, "logprob": -2.56, "special": True}
    assert events[-1]["generated_text"] == TEXT
    assert events[-1]["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": len(TEXT) + 1,
        "seed": 3,
        "input_length": 2,
    }
    assert stream(client)[-1]["details"] is None


def test_a_stream_says_what_the_whole_says(client: Any) -> None:
    parameters: Json = {"details": True, "max_new_tokens": 7, "stop": ["lo"], "top_n_tokens": 1}
    whole, events = generate(client, **parameters), stream(client, **parameters)
    assert [event["token"] for event in events] == whole["details"]["tokens"]
    assert [event["top_tokens"] for event in events] == whole["details"]["top_tokens"]
    assert events[-1]["generated_text"] == whole["generated_text"]


def test_the_root_streams_on_request(client: Any) -> None:
    body = {"inputs": "ab", "parameters": {"max_new_tokens": 3}}
    answer = client.post("/", json={**body, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text == client.post("/generate_stream", json=body).text
    assert client.post("/generate_stream", json={**body, "stream": True}).text == answer.text
    assert client.post("/generate", json={**body, "stream": False}).status_code == 200
    assert refusal(client, "/generate", stream=True).startswith("stream:")
    assert refusal(client, "/generate_stream", stream=False).startswith("stream:")


@pytest.mark.parametrize(
    ("script", "parameters", "texts"),
    [
        ("é!".encode(), {}, ["", "é", "!", END]),
        (b"a\xc3", {}, ["a", "\ufffd", END]),
        (b"a\xc3b", {}, ["a", "", "\ufffdb", END]),
        (b"a\xc3", {"max_new_tokens": 2}, ["a", "\ufffd"]),
        ("a\u2028".encode(), {}, ["a", "", "", "\u2028", END]),
        ("a\xe9b".encode(), {"stop": ["é"]}, ["a", "", "é"]),
    ],
    ids=repr,
)
def test_a_character_of_several_tokens_is_the_last_ones_text(
    open_client: Callable[..., Any], build_runner: Any, script: bytes, parameters: Json, texts: list[str]
) -> None:
    """A partial character becomes U+FFFD. Streamed or whole, the tokens' texts joined are the text."""
    client = open_client(runner=build_runner(script=script))
    events = stream(client, **parameters)
    assert [event["token"]["text"] for event in events] == texts
    whole = generate(client, details=True, **parameters)
    assert whole["details"]["tokens"] == [event["token"] for event in events]
    assert whole["generated_text"] == events[-1]["generated_text"] == shown(whole["details"]["tokens"])


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_hang_up_frees_every_block(
    open_client: Callable[..., Any], build_runner: Any, hang_up: Any, is_stream: bool
) -> None:
    client = open_client(runner=build_runner(is_gated=True))
    hang_up(client, "/", inputs="ab", stream=is_stream)


def test_the_log_counts_tokens_and_has_no_text(client: Any) -> None:
    stream(client, "secret", max_new_tokens=3)
    entry = client.scene.log.calls[-1].kwargs
    assert (entry["method"], entry["route"]) == ("POST", "/generate_stream")
    assert (entry["prompt_tokens"], entry["completion_tokens"], entry["finish_reason"]) == (6, 3, "length")
    assert "secret" not in entry.values()


# ---- sampling


@pytest.mark.parametrize(
    "parameters",
    [{"do_sample": True}, {"temperature": 1.0}, {"top_k": 5}, {"top_p": 0.9}, {"typical_p": 0.9}, None],
    ids=str,
)
def test_parameters_that_enable_sampling(client: Any, parameters: Json | None) -> None:
    """`do_sample`, any sampling parameter or, as in TGI, no `parameters` at all."""
    answer = client.post("/generate", json={"inputs": "a", "parameters": parameters})
    assert answer.status_code == 200
    assert not params_of(client).is_greedy


@pytest.mark.parametrize("parameters", [{}, {"do_sample": False}, {"repetition_penalty": 2, "seed": 5}], ids=str)
def test_without_them_it_is_greedy(client: Any, parameters: Json) -> None:
    assert generate(client, details=True, **parameters)["details"]["seed"] is None
    assert params_of(client).is_greedy


def test_every_sampling_parameter_reaches_the_engine(client: Any) -> None:
    generate(
        client,
        temperature=0.5,
        top_k=3,
        top_p=0.25,
        typical_p=0.75,
        repetition_penalty=1.5,
        frequency_penalty=-2,
        seed=2**64 - 1,
        stop=["x"],
        max_new_tokens=9,
    )
    params = params_of(client)
    assert (params.temperature, params.top_k, params.top_p, params.typical_p) == (0.5, 3, 0.25, 0.75)
    assert (params.repetition_penalty, params.frequency_penalty) == (1.5, -2)
    assert (params.seed, params.stop, params.max_tokens) == (2**64 - 1, ("x",), 9)
    generate(client, top_k=2**31 - 1)
    assert params_of(client).top_k == 0, "more than there are tokens is all of them"


@pytest.mark.parametrize(
    ("grammar", "source"),
    [
        ({"type": "regex", "value": " hello w[a-z]+"}, " hello w[a-z]+"),
        ({"type": "json", "value": {"type": "string"}}, '{"type": "string"}'),
        ({"type": "json", "value": '{"type":"string"}'}, '{"type": "string"}'),
        ({"type": "json_schema", "value": {"name": "text", "schema": {"type": "string"}}}, '{"type": "string"}'),
        (None, None),
    ],
    ids=str,
)
def test_a_grammar_reaches_the_engine(
    open_client: Callable[..., Any], build_runner: Any, grammar: Json | None, source: str | None
) -> None:
    text = '"a"' if source and "string" in source else TEXT
    client = open_client(runner=build_runner(script=text.encode()))
    assert generate(client, grammar=grammar) == {"generated_text": text}
    asked = params_of(client).grammar
    assert (asked and asked.source) == source


@pytest.mark.parametrize(
    ("grammar", "name"),
    [
        ("[a-z]", "parameters.grammar"),
        ({"type": "regex"}, "parameters.grammar.value"),
        ({"type": "lark", "value": "x"}, "parameters.grammar.type"),
        ({"type": "regex", "value": "("}, "parameters.grammar"),
        ({"type": "json", "value": "{"}, "parameters.grammar.value"),
        ({"type": "json", "value": {"type": "text"}}, "parameters.grammar"),
    ],
    ids=str,
)
def test_an_invalid_grammar_is_refused_by_name(client: Any, grammar: Any, name: str) -> None:
    assert name in refusal(client, parameters={"grammar": grammar})
    assert client.scene.runner.plans == []


@pytest.mark.parametrize(("inputs", "max_tokens"), [("ab", 254), ("a" * 200, 56)])
def test_without_max_new_tokens_the_rest_of_the_context_is_the_limit(client: Any, inputs: str, max_tokens: int) -> None:
    generate(client, inputs)
    assert params_of(client).max_tokens == max_tokens


def test_truncation_keeps_the_prompts_end(client: Any) -> None:
    """For any length: the part that is cut off need not fit the context."""
    generate(client, "a" * 5000 + "xyz", truncate=3)
    assert client.scene.runner.plans[0].rows[0].token_ids[:3] == [*b"xyz"]


@pytest.mark.reported("clients of Hugging Face's hosted inference, with its options for cache and loading")
def test_options_of_the_hosted_service_change_nothing(client: Any) -> None:
    for options in ({"use_cache": False, "wait_for_model": True}, {"use_cache": True, "use_gpu": False}, {}, None):
        answer = client.post(
            "/generate", json={"inputs": "ab", "options": options, "parameters": {"max_new_tokens": 1}}
        )
        assert answer.status_code == 200, options


# ---- refusals


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"best_of": 0}, "best_of"),
        ({"best_of": 5, "do_sample": True}, "best_of"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 2, "do_sample": True, "seed": 1}, "best_of"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"frequency_penalty": 2.1}, "frequency_penalty"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1}, "top_p"),
        ({"typical_p": 0}, "typical_p"),
        ({"typical_p": 1}, "typical_p"),
        ({"do_sample": "yes"}, "do_sample"),
        ({"do_sample": 1}, "do_sample"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 255}, "max_new_tokens"),
        ({"max_new_tokens": 2**40}, "max_new_tokens"),
        ({"stop": "x"}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"truncate": 0}, "truncate"),
        ({"truncate": 256}, "truncate"),
        ({"watermark": True}, "watermark"),
        ({"seed": -2}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"top_n_tokens": -1}, "top_n_tokens"),
        ({"top_n_tokens": 6}, "top_n_tokens"),
        ({"adapter_id": "lora"}, "adapter_id"),
        ({"num_beams": 2}, "num_beams"),
        ({"return_full_text": "x"}, "return_full_text"),
    ],
    ids=str,
)
def test_a_wrong_parameter_is_refused_by_name(client: Any, parameters: Json, name: str) -> None:
    assert name in refusal(client, parameters=parameters)
    assert name in refusal(client, "/", parameters=parameters)
    assert client.scene.runner.plans == []


@pytest.mark.parametrize("name", ["best_of", "decoder_input_details"])
def test_parameters_that_cannot_be_streamed_are_refused(client: Any, name: str) -> None:
    parameters = {"do_sample": True, name: 2 if name == "best_of" else True}
    assert name in refusal(client, "/generate_stream", parameters=parameters)
    assert name in refusal(client, "/", parameters=parameters, stream=True)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"inputs": ""}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": ["a"]}, "inputs"),
        ({"inputs": "a" * 256}, "inputs"),
        ({"inputs": "a" * 50_000}, "inputs"),
        ({"prompt": "a"}, "prompt"),
        ({"parameters": []}, "parameters"),
        ({"options": {"use_gpu": True}}, "use_gpu"),
        ({"options": {"fast": True}}, "fast"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_body_is_refused_by_name(client: Any, body: Json, name: str) -> None:
    """Never with the words by which `InferenceClient` detects other kinds of servers."""
    message = refusal(client, **body)
    assert name in message
    assert "model_kwargs" not in message
    assert "aaaa" not in message


def test_info_has_the_limits(client: Any) -> None:
    assert client.get("/info").json() == {
        "model_id": "organisation/tiny",
        "model_sha": None,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": 8,
        "max_best_of": 4,
        "max_stop_sequences": 4,
        "max_input_tokens": 255,
        "max_total_tokens": 256,
        "validation_workers": 1,
        "max_client_batch_size": 8,
        "router": "distilgpt2-api",
        "version": client.scene.app.version,
        "sha": None,
        "docker_label": None,
    }


@pytest.mark.reported("a reviewer with InferenceClient on an address that ends in /generate, which streams elsewhere")
def test_a_stream_on_generate_is_told_the_streaming_route(client: Any) -> None:
    answer = client.post("/generate", json={"inputs": "a", "stream": True})
    assert answer.status_code == 422
    assert "/generate_stream" in answer.json()["error"]


@pytest.mark.reported("a reviewer, who sent the values that ask for nothing of other protocols here")
@pytest.mark.parametrize(
    ("path", "body"),
    [("/generate", {"inputs": "a"}), ("/v1/score", {"input": "ab"}), ("/tokenize", {"prompt": "a"})],
)
def test_values_without_effect_in_other_protocols_have_none_here(client: Any, path: str, body: dict[str, Any]) -> None:
    nothing: dict[str, Any] = {
        **dict.fromkeys(("n", "max_tokens", "stream_options", "temperature", "stop_sequences")),
        "logprobs": False,
        "logit_bias": [],
        "metadata": {},
        "return_full_text": False,
    }
    assert client.post(path, json={**body, **nothing}).status_code == 200
    answer = client.post(path, json={**body, "temperture": None})
    assert answer.status_code in (400, 422)
    assert "temperture" in answer.text
