"""`POST /v1/completions`: its answers, streamed and whole."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

Json = dict[str, Any]


def joined(chunks: list[Json]) -> list[Json]:
    """The choices of a stream, joined as clients do."""
    choices: dict[int, Json] = defaultdict(lambda: {"text": "", "logprobs": None, "finish_reason": None})
    for chunk in chunks:
        for piece in chunk["choices"]:
            choice = choices[piece["index"]]
            choice |= {name: piece[name] for name in ("index", "stop_reason", "prompt_token_ids") if name in piece}
            if "token_ids" in piece:
                choice["token_ids"] = choice.get("token_ids", []) + piece["token_ids"]
            choice["text"] += piece["text"]
            assert choice["finish_reason"] is None, "nothing comes after the finish reason"
            choice["finish_reason"] = piece["finish_reason"]
            if piece["logprobs"] is not None:
                lists = choice["logprobs"] = choice["logprobs"] or defaultdict(list)
                for name, values in piece["logprobs"].items():
                    lists[name] += values
    return [choices[index] for index in sorted(choices)]


def test_a_completion_has_every_field(client: Any) -> None:
    answer = client.complete(prompt="once", max_tokens=6)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.pop("id").startswith("cmpl-")
    assert body.pop("system_fingerprint").startswith("fp_")
    assert body == {
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "organisation/tiny",
        "choices": [{"index": 0, "text": " hello", "logprobs": None, "finish_reason": "length", "stop_reason": None}],
        "usage": {
            "prompt_tokens": 4,
            "completion_tokens": 6,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


def test_end_of_text_stops_and_is_counted_but_not_shown(client: Any) -> None:
    body = client.complete(prompt="once", max_tokens=50).json()
    assert body["choices"][0]["text"] == " hello world"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == len(" hello world") + 1


@pytest.mark.parametrize(
    ("prompt", "num_prompts", "num_tokens"),
    [
        ("ab", 1, 2),
        (["ab", "c"], 2, 3),
        ([97, 98], 1, 2),
        ([[97, 98], [99]], 2, 3),
        (None, 1, 1),
        ("<|endoftext|>", 1, 1),
        ("a\0b", 1, 3),
        ("é", 1, 2),
    ],
)
def test_every_form_of_prompt(client: Any, prompt: Any, num_prompts: int, num_tokens: int) -> None:
    body = client.complete(prompt=prompt, max_tokens=1).json()
    assert len(body["choices"]) == num_prompts
    assert body["usage"]["prompt_tokens"] == num_tokens


def test_a_missing_prompt_begins_at_the_end_of_text(client: Any) -> None:
    body = client.complete(max_tokens=1, echo=True).json()
    assert body["choices"][0]["text"] == "<|endoftext|> "


def test_choices_are_numbered_prompt_by_prompt(client: Any) -> None:
    """Index = prompt's index times n plus the completion's; each prompt is counted once."""
    body = client.complete(prompt=["a", "bc"], n=2, max_tokens=3, echo=True).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in body["choices"]] == ["a he", "a he", "bc he", "bc he"]
    assert body["usage"]["prompt_tokens"] == 3
    assert body["usage"]["completion_tokens"] == 12


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n": 3},
        {"prompt": ["ab", "c"], "n": 2},
        {"logprobs": 2},
        {"logprobs": 0},
        {"echo": True},
        {"echo": True, "logprobs": 3, "n": 2},
        {"echo": True, "logprobs": 1, "max_tokens": 0},
        {"echo": True, "logprobs": 1, "prompt": [[226, 130], [172, 32, 97]]},
        {"stop": "wor"},
        {"stop": ["lo w", "zzz"], "logprobs": 1},
        {"stop": "wor", "include_stop_str_in_output": True},
        {"stop_token_ids": [ord("w")]},
        {"max_tokens": 3},
        {"ignore_eos": True, "max_tokens": 30},
        {"max_tokens": 0},
        {"max_tokens": 0, "logprobs": 0},
        {"min_tokens": 15},
        {"n": 2, "best_of": 2},
        {"return_token_ids": True, "n": 2},
        {"return_token_ids": True, "echo": True, "logprobs": 1, "stop": "wor"},
        {"return_token_ids": True, "max_tokens": 0},
        {"return_tokens_as_token_ids": True, "logprobs": 2, "echo": True},
        {"truncate_prompt_tokens": 2, "echo": True, "logprobs": 0, "return_token_ids": True},
        {"request_id": "mine", "n": 2, "prompt": ["a", "b", "c"], "logprobs": 5, "echo": True, "stop": ["d", "o"]},
    ],
)
def test_streamed_and_whole_agree_field_by_field(client: Any, options: Json) -> None:
    body = {"prompt": "once", "max_tokens": 20, **options}
    whole = client.complete(**body).json()
    chunks = client.stream(**body, stream_options={"include_usage": True})
    assert joined(chunks[:-1]) == whole["choices"]
    assert chunks[-1]["choices"] == []
    cached = {"prompt_tokens_details": {"cached_tokens": 0}}
    assert chunks[-1]["usage"] | cached == whole["usage"] | cached
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert {(chunk["object"], chunk["model"]) for chunk in chunks} == {("text_completion", "organisation/tiny")}
    assert {chunk["system_fingerprint"] for chunk in chunks} == {whole["system_fingerprint"]}
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_usage_is_absent_from_a_stream_that_did_not_ask(client: Any) -> None:
    assert all("usage" not in chunk for chunk in client.stream(prompt="a", max_tokens=3))


def test_continuous_usage_grows_chunk_by_chunk(client: Any) -> None:
    chunks = client.stream(
        prompt="ab", max_tokens=4, stream_options={"include_usage": True, "continuous_usage_stats": True}
    )
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == 4
    assert chunks[-1]["choices"] == []
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {2}


@pytest.mark.reported("vLLM's own tests of its stream options, run against this server")
def test_no_chunk_has_usage_without_include_usage(client: Any) -> None:
    for options in ({"include_usage": False, "continuous_usage_stats": True}, {"continuous_usage_stats": True}):
        assert all("usage" not in chunk for chunk in client.stream(prompt="a", max_tokens=3, stream_options=options))


@pytest.mark.reported("OpenAI's SDKs and agents, which send the option that pads no chunk")
def test_obfuscation_is_off_or_refused(client: Any) -> None:
    options = {"include_usage": True, "include_obfuscation": False}
    assert client.stream(prompt="a", max_tokens=1, stream_options=options)[-1]["usage"]["completion_tokens"] == 1
    refused = client.complete(prompt="a", stream=True, stream_options={"include_obfuscation": True})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "include_obfuscation")
    assert client.complete(prompt="a", stream_options={"include_usage": False}).status_code == 200


def test_a_stop_sequence_ends_before_itself_unless_included(client: Any) -> None:
    assert client.complete(prompt="a", max_tokens=50, stop="o w").json()["choices"][0]["text"] == " hell"
    body = client.complete(prompt="a", max_tokens=50, stop="o w", include_stop_str_in_output=True).json()
    assert body["choices"][0]["text"] == " hello w"
    assert body["choices"][0]["finish_reason"] == "stop"


def test_a_streamed_stop_sequence_never_leaks(client: Any) -> None:
    """Not even its beginning, although its bytes are sampled one by one."""
    texts = [chunk["choices"][0]["text"] for chunk in client.stream(prompt="a", max_tokens=50, stop="lo world")]
    assert "".join(texts) == " hel"


def test_a_stream_never_shows_a_partial_character(open_client: Callable[..., Any], build_runner: Any) -> None:
    client = open_client(runner=build_runner(script="aé🎉ü".encode()))
    chunks = client.stream(prompt="a", max_tokens=50)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["a", "é", "🎉", "ü", ""]


def test_an_event_is_one_line_for_every_reader(open_client: Callable[..., Any], build_runner: Any) -> None:
    """Some readers, httpx among them, split lines as `str.splitlines` does, at more characters than the protocol's."""
    script = "a\u0085b\u2028c\u2029d\r\n\x0b\x0c\x1ee"
    client = open_client(runner=build_runner(script=script.encode()))
    answer = client.complete(prompt="a", max_tokens=50, stream=True, logprobs=0)
    events = [line for line in answer.text.splitlines() if line]
    assert all(line.startswith("data: ") for line in events)
    pieces = [json.loads(line.removeprefix("data: "))["choices"][0]["text"] for line in events[:-1]]
    assert "".join(pieces) == script


def test_logprobs_have_four_parallel_lists(client: Any) -> None:
    body = client.complete(prompt="a", max_tokens=3, logprobs=2).json()
    assert body["choices"][0]["logprobs"] == {
        "tokens": [" ", "h", "e"],
        "token_logprobs": [-0.32, -1.04, -1.01],
        "top_logprobs": [
            {"\0": 0.0, "\x01": -0.01, " ": -0.32},
            {"\0": 0.0, "\x01": -0.01, "h": -1.04},
            {"\0": 0.0, "\x01": -0.01, "e": -1.01},
        ],
        "text_offset": [0, 1, 2],
    }


def test_echoed_logprobs_begin_with_null_and_score_the_prompt(client: Any) -> None:
    logprobs = client.complete(prompt="ab", max_tokens=1, echo=True, logprobs=0).json()["choices"][0]["logprobs"]
    assert logprobs == {
        "tokens": ["a", "b", " "],
        "token_logprobs": [None, -0.98, -0.32],
        "top_logprobs": [None, {"b": -0.98}, {" ": -0.32}],
        "text_offset": [0, 1, 2],
    }


def test_scoring_alone_samples_nothing(client: Any) -> None:
    """`max_tokens: 0` with `echo`, as lm-eval needs it, samples no token."""
    body = client.complete(prompt="abc", max_tokens=0, echo=True, logprobs=1).json()
    choice = body["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("abc", "length")
    assert choice["logprobs"]["token_logprobs"] == [None, -0.98, -0.99]
    assert body["usage"]["completion_tokens"] == 0


def test_tokens_of_a_split_character_are_spelled_as_bytes_and_share_their_offset(
    open_client: Callable[..., Any], build_runner: Any
) -> None:
    client = open_client(runner=build_runner(script="é!".encode()))
    logprobs = client.complete(prompt="a", max_tokens=3, logprobs=0).json()["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["bytes:\\xc3", "bytes:\\xa9", "!"]
    assert logprobs["text_offset"] == [0, 0, 1]


def test_parameters_reach_the_engine(client: Any) -> None:
    sent = {
        "max_tokens": 5,
        "min_tokens": 2,
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.9,
        "min_p": 0.1,
        "typical_p": 0.8,
        "presence_penalty": 1,
        "frequency_penalty": -1.5,
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
        "seed": -5,
        "ignore_eos": True,
        "stop_token_ids": [3],
        "allowed_token_ids": [4, 5],
    }
    assert client.complete(prompt="a", logit_bias={"5": -100}, stop="x", **sent).status_code == 200
    params = client.scene.runner.plans[0].rows[0].params
    got = {name: getattr(params, name) for name in sent}
    assert got == sent | {"stop_token_ids": (3,), "allowed_token_ids": (4, 5)}
    assert params.logit_bias == ((5, -100.0),)
    assert params.stop == ("x",)


def test_bad_words_are_banned_at_the_beginning_and_after_a_space(client: Any) -> None:
    """Each as token ids. A leading space has no effect, and duplicates count once."""
    assert client.complete(prompt="a", bad_words=["ab", " ab", "c"]).status_code == 200
    params = client.scene.runner.plans[0].rows[0].params
    assert params.bad_words == ((97, 98), (32, 97, 98), (99,), (32, 99))


def test_null_means_the_default_for_every_field(client: Any) -> None:
    names = client.get("/openapi.json").json()["components"]["schemas"]["CompletionRequest"]["properties"]
    assert client.complete(**dict.fromkeys(names)).status_code == 200
    params = client.scene.runner.plans[0].rows[0].params
    assert (params.max_tokens, params.temperature, params.top_p, params.top_k, params.seed) == (16, 1.0, 1.0, 0, 7)


@pytest.mark.parametrize("model", ["organisation/tiny", "tiny", None])
def test_the_model_goes_by_its_names(client: Any, model: str | None) -> None:
    body = client.complete(prompt="a", model=model).json()
    assert body["model"] == "organisation/tiny"


@pytest.mark.parametrize(
    "neutral",
    [
        {"suffix": ""},
        {"use_beam_search": False, "length_penalty": 1, "early_stopping": False},
        {"add_special_tokens": False},
        {"prompt_embeds": None},
        {"spaces_between_special_tokens": False},
        {"stream_interval": 1},
        {"response_format": {"type": "text"}},
        {"logprobs": False},
        {"logit_bias": []},
        {"metadata": {}},
        {"top_logprobs": 0},
        {"tools": [], "tool_choice": "none", "store": False},
        {"details": True, "watermark": False, "decoder_input_details": False, "top_n_tokens": None, "grammar": None},
        {"n_probs": 0, "mirostat": 0, "cache_prompt": True, "id_slot": -1},
    ],
)
@pytest.mark.reported("clients' default parameters, each alone, in issues of several servers")
def test_parameters_accept_values_without_effect(client: Any, neutral: Json) -> None:
    assert client.complete(prompt="a", **neutral).status_code == 200


def test_the_document_lists_the_values_that_mean_null(client: Any) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    completion, chat = (schemas[name]["properties"] for name in ("CompletionRequest", "ChatCompletionRequest"))
    assert {"type": "boolean", "const": False} in completion["logprobs"]["anyOf"]
    assert {"type": "array", "const": []} in completion["logit_bias"]["anyOf"]
    assert chat["logprobs"]["anyOf"] == [{"type": "boolean"}, {"type": "null"}]
    assert completion["stop_sequences"]["anyOf"][0]["maxItems"] == 4


@pytest.mark.reported("guidellm sends max_completion_tokens, InferenceClient and @huggingface/inference TGI's names")
def test_other_protocols_names_of_the_same_parameters(client: Any) -> None:
    body = {"max_new_tokens": 5, "return_full_text": True, "stop_sequences": ["zz"], "truncate": 2}
    answer = client.complete(prompt="abc", **body).json()
    assert (answer["choices"][0]["text"], answer["usage"]["prompt_tokens"]) == ("bc hell", 2)
    assert client.scene.runner.plans[0].rows[0].params.stop == ("zz",)
    for lengths in ({"max_completion_tokens": 3}, {"max_completion_tokens": 3, "max_tokens": 3}):
        assert client.complete(prompt="a", **lengths).json()["usage"]["completion_tokens"] == 3
    refused = client.complete(prompt="a", max_completion_tokens=3, max_tokens=4)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_completion_tokens")
    assert "max_tokens" in refused.json()["error"]["message"]


@pytest.mark.reported("@huggingface/inference, which flattens TGI's parameters into a completion's body")
@pytest.mark.parametrize(
    ("sent", "temperature"),
    [
        ({"do_sample": False}, 0.0),
        ({"do_sample": None}, 1.0),
        ({"do_sample": True}, 1.0),
        ({"do_sample": False, "temperature": 0.5}, 0.5),
        ({"do_sample": False, "top_k": 3}, 1.0),
    ],
)
def test_do_sample_means_the_same_as_in_tgi(client: Any, sent: Json, temperature: float) -> None:
    assert client.complete(prompt="a", max_tokens=1, **sent).status_code == 200
    assert client.scene.runner.plans[0].rows[0].params.temperature == temperature
    refused = client.complete(prompt="a", do_sample=True, temperature=0)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "do_sample")


@pytest.mark.reported("a reviewer, whose one stop sequence as a text and as a list was called two")
def test_a_text_and_a_list_of_it_are_the_same_stop_sequences(client: Any) -> None:
    assert client.complete(prompt="a", max_tokens=1, stop="b", stop_sequences=["b"]).status_code == 200
    assert client.complete(prompt="a", max_tokens=1, stop="b", stop_sequences=["c"]).status_code == 400
