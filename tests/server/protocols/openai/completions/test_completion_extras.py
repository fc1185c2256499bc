"""vLLM's extra parameters of `/v1/completions`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.core.plan import NOTHING_TO_DRAW, RowResult, TokenLogprobs
from distilgpt2_api.server.protocols.openai.completions.logprobs import LogprobsWriter, empty_lists
from distilgpt2_api.text.chat_templates.chat_template import ChatTemplate

Json = dict[str, Any]


def note_submissions(client: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record the requests that the engine gets from now on."""
    submitted: list[Any] = []
    submit_all = client.scene.engine.submit_all

    def noted(requests: Any, **options: Any) -> Any:
        submitted.extend(requests)
        return submit_all(requests, **options)

    monkeypatch.setattr(client.scene.engine, "submit_all", noted)
    return submitted


def choice_of(answer: Any) -> Json:
    assert answer.status_code == 200, answer.text
    [choice] = answer.json()["choices"]
    return dict(choice)


def test_token_ids_come_with_the_choice(client: Any) -> None:
    """The completion's, including a last one that is not shown, and the prompt's."""
    choice = choice_of(client.complete(prompt="ab", max_tokens=50, stop_token_ids=[ord("l")], return_token_ids=True))
    assert choice["text"] == " he"
    assert choice["token_ids"] == [*b" hel"]
    assert choice["prompt_token_ids"] == [*b"ab"]
    assert "token_ids" not in choice_of(client.complete(prompt="ab", return_token_ids=False))


def test_streamed_token_ids_come_chunk_by_chunk_and_the_prompts_once(client: Any) -> None:
    """Also while text is held back as the possible beginning of a stop sequence."""
    chunks = client.stream(prompt=["ab", "c"], max_tokens=5, stop="hellx", return_token_ids=True)
    pieces = [chunk["choices"][0] for chunk in chunks]
    for index, prompt in enumerate(("ab", "c")):
        mine = [piece for piece in pieces if piece["index"] == index]
        assert [piece["token_ids"] for piece in mine] == [[byte] for byte in b" hell"]
        assert [piece.get("prompt_token_ids") for piece in mine] == [[*prompt.encode()], None, None, None, None]


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize(
    ("asked", "stop_reason"),
    [
        ({"stop": ["zz", "o w"]}, "o w"),
        ({"stop_token_ids": [ord("w")]}, ord("w")),
        ({"max_tokens": 3}, None),
        ({}, None),
    ],
)
def test_the_stop_reason_says_what_ended_it(client: Any, asked: Json, stop_reason: Any, is_stream: bool) -> None:
    body = {"prompt": "a", "max_tokens": 50, **asked}
    choice = client.stream(**body)[-1]["choices"][0] if is_stream else choice_of(client.complete(**body))
    assert choice["stop_reason"] == stop_reason


def test_tokens_can_be_shown_as_ids(client: Any) -> None:
    logprobs = choice_of(
        client.complete(prompt="a", max_tokens=1, logprobs=1, echo=True, return_tokens_as_token_ids=True)
    )["logprobs"]
    assert logprobs["tokens"] == ["token_id:97", "token_id:32"]
    assert logprobs["top_logprobs"] == [None, {"token_id:0": 0.0, "token_id:32": -0.32}]


def test_prompt_logprobs_are_by_id_with_rank_and_text(client: Any) -> None:
    """Independent of `echo` and `logprobs`. The token itself is always listed."""
    choice = choice_of(client.complete(prompt="a\x01b", max_tokens=1, prompt_logprobs=2))
    assert choice["logprobs"] is None
    likeliest = {
        "0": {"logprob": 0.0, "rank": 1, "decoded_token": "\0"},
        "1": {"logprob": -0.01, "rank": 2, "decoded_token": "\x01"},
    }
    assert choice["prompt_logprobs"] == [
        None,
        likeliest,
        likeliest | {"98": {"logprob": -0.98, "rank": None, "decoded_token": "b"}},
    ]


@pytest.mark.parametrize(("logprobs", "prompt_logprobs"), [(0, 3), (3, 0), (2, 2)])
def test_prompt_logprobs_and_echoed_logprobs_each_list_as_many_as_asked(
    client: Any, logprobs: int, prompt_logprobs: int
) -> None:
    choice = choice_of(
        client.complete(prompt="ab", max_tokens=0, echo=True, logprobs=logprobs, prompt_logprobs=prompt_logprobs)
    )
    assert len(choice["logprobs"]["top_logprobs"][1]) == logprobs + 1
    assert len(choice["prompt_logprobs"][1]) == prompt_logprobs + 1


def test_every_choice_has_the_prompts_logprobs(client: Any) -> None:
    body = client.complete(prompt=["ab", "c"], n=2, max_tokens=1, prompt_logprobs=0).json()
    assert [len(choice["prompt_logprobs"]) for choice in body["choices"]] == [2, 2, 1, 1]


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"truncate_prompt_tokens": 3}, "fgh"),
        ({"truncate_prompt_tokens": 3, "truncation_side": "left"}, "fgh"),
        ({"truncate_prompt_tokens": 3, "truncation_side": "right"}, "abc"),
        ({"truncate_prompt_tokens": 8}, "abcdefgh"),
        ({"truncate_prompt_tokens": 9}, "abcdefgh"),
        ({"truncate_prompt_tokens": -1}, "abcdefgh"),
        ({"truncate_prompt_tokens": -1, "max_tokens": 250}, "cdefgh"),
    ],
)
@pytest.mark.parametrize("prompt", ["abcdefgh", [*b"abcdefgh"]])
def test_a_prompt_is_cut_to_length(client: Any, prompt: Any, asked: Json, kept: str) -> None:
    """Only the kept part is echoed and counted."""
    body = client.complete(prompt=prompt, echo=True, **{"max_tokens": 0, **asked}).json()
    assert body["choices"][0]["text"].removesuffix(" hello world") == kept
    assert body["usage"]["prompt_tokens"] == len(kept)


def test_a_text_far_over_the_context_can_be_cut(client: Any) -> None:
    answer = client.complete(prompt="x" * 50_000 + "end", truncate_prompt_tokens=-1, max_tokens=100, echo=True)
    assert answer.json()["usage"]["prompt_tokens"] == 156
    assert choice_of(answer)["text"].startswith("x" * 153 + "end")


def test_each_of_several_prompts_is_cut(client: Any) -> None:
    body = client.complete(prompt=["abc", "d", "efg"], truncate_prompt_tokens=2, max_tokens=0, echo=True).json()
    assert [choice["text"] for choice in body["choices"]] == ["bc", "d", "fg"]


def test_the_request_id_names_the_answer_and_need_not_be_unique(client: Any) -> None:
    for _ in range(2):
        assert client.complete(prompt="a", request_id="mine-1").json()["id"] == "cmpl-mine-1"
    assert {chunk["id"] for chunk in client.stream(prompt="a", request_id="mine-1")} == {"cmpl-mine-1"}


def test_the_fingerprint_stays_while_the_service_does(open_client: Callable[..., Any]) -> None:
    """The same in every answer, and different for another model."""
    client, other = open_client(), open_client(model_name="another")
    first, second = (client.complete(prompt="a").json()["system_fingerprint"] for _ in range(2))
    assert first == second != other.complete(prompt="a").json()["system_fingerprint"]


@pytest.mark.reported("one list of a model's files for serve, pull, the image and the fingerprint")
def test_the_fingerprint_changes_with_end_tokens_and_chat_template(
    open_client: Callable[..., Any], build_runner: Callable[..., Any]
) -> None:
    runner = build_runner()
    runner.config = replace(runner.config, eos_token_ids=(256, 7))
    template = ChatTemplate("{{ messages[0].content }}", origin="here", special_tokens={})
    clients = [open_client(), open_client(runner=runner), open_client(chat_template=template)]
    assert len({client.complete(prompt="a").json()["system_fingerprint"] for client in clients}) == 3


def test_the_largest_top_logprob_is_the_likeliest_tokens_even_if_two_tokens_have_the_same_text(tokenizer: Any) -> None:
    """lm-eval treats a token as greedy if its log-probability is exactly the largest of `top_logprobs`."""
    beyond = tokenizer.vocab_size  # Two tokens of a padded model that the tokenizer lacks: both have the text "".
    writer = LogprobsWriter(tokenizer, num_top=2, is_by_id=False, skips_special_tokens=False)
    lists = empty_lists()
    likeliest, second = (beyond, -0.5), (beyond + 1, -0.75)
    writer.write(
        [
            TokenLogprobs.of(beyond, -0.5, [likeliest, second]),
            TokenLogprobs.of(beyond + 1, -0.75, [likeliest, second]),
            TokenLogprobs.of(97, -3.0, [likeliest, second]),
        ],
        lists,
    )
    assert lists["top_logprobs"] == [{"": -0.5}, {"": -0.5}, {"": -0.5, "a": -3.0}]
    tops: Any = lists["top_logprobs"]
    pairs = zip(lists["token_logprobs"], tops, strict=True)
    are_greedy = [logprob == max(top.values()) for logprob, top in pairs]
    assert are_greedy == [True, False, False]


def test_scoring_requests_as_lm_eval_sends_them(open_client: Callable[..., Any], build_runner: Any) -> None:
    """Lists of ids, one token shorter than the context. Every position of a prompt but the first is scored."""
    client = open_client(runner=build_runner(script=b"!"))
    prompts = [[*b"abc"], [65] * 255, [*b"de"]]
    body = client.complete(prompt=prompts, echo=True, logprobs=1, max_tokens=1, temperature=0, seed=1234).json()
    for choice, prompt in zip(body["choices"], prompts, strict=True):
        logprobs = choice["logprobs"]
        assert logprobs["token_logprobs"] == [None, *(-token_id / 100 for token_id in prompt[1:]), -0.33]
        assert {len(values) for values in logprobs.values()} == {len(prompt) + 1}


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_the_priority_reaches_the_queue(
    open_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    client = open_client(chat_template=ChatTemplate("{{ messages[0].content }}", origin="test"))
    submitted = note_submissions(client, monkeypatch)
    prompt = {"messages": [{"role": "user", "content": "a"}]} if "chat" in path else {"prompt": ["a", "b"]}
    assert client.post(path, json={**prompt, "priority": 3}).status_code == 200
    assert client.post(path, json=prompt).status_code == 200
    assert {request.priority for request in submitted} == {3, 0}


@pytest.mark.parametrize("options", [{}, {"prompt": ["a", "b"]}, {"best_of": 2}])
def test_a_request_that_bans_every_token_is_a_client_error(
    open_client: Callable[..., Any], build_runner: Any, options: Json
) -> None:
    """Only the engine finds it out. After the first chunk the error is an event."""

    class Exhausted(build_runner):  # type: ignore[misc]  # a fixture's value has no type
        def draw(self, row: Any) -> Any:
            is_over = len(row.token_ids) - row.num_prompt_tokens == 2
            return RowResult(error=NOTHING_TO_DRAW) if is_over else super().draw(row)

    client = open_client(runner=Exhausted())
    answer = client.complete(**{"prompt": "a", **options})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    if "best_of" not in options:
        stream = client.complete(stream=True, **{"prompt": "a", **options})
        assert '"type":"invalid_request_error"' in stream.text.strip().rpartition("data: ")[2]
    assert client.scene.engine.num_requests == 0


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("asked", "grammar"),
    [
        ({"guided_regex": "[ab]+"}, Grammar(GrammarKind.REGEX, "[ab]+")),
        ({"structured_outputs": {"regex": "[ab]+"}}, Grammar(GrammarKind.REGEX, "[ab]+")),
        ({"guided_grammar": 'start: "a"'}, Grammar(GrammarKind.LARK, 'start: "a"')),
        ({"guided_json": {"type": "integer"}}, Grammar(GrammarKind.JSON_SCHEMA, '{"type": "integer"}')),
        ({"response_format": {"type": "json_object"}}, Grammar(GrammarKind.JSON_SCHEMA, '{"type":"object"}')),
        ({"response_format": {"type": "text"}}, None),
        ({"structured_outputs": None}, None),
    ],
)
def test_the_grammar_of_a_completion_reaches_the_engine(
    open_client: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    asked: Json,
    grammar: Grammar | None,
    path: str,
) -> None:
    client = open_client(chat_template=ChatTemplate("{{ messages[0].content }}", origin="test"))
    submitted = note_submissions(client, monkeypatch)
    prompt = {"messages": [{"role": "user", "content": "a"}]} if "chat" in path else {"prompt": "a"}
    client.post(path, json={**prompt, **asked, "max_tokens": 1})
    assert [request.params.grammar for request in submitted] == [grammar]


@pytest.mark.reported("a chat model whose turn markers stood in the text; vLLM hides special tokens by default")
@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize(("is_skipped", "text"), [(None, "a"), (False, "a<|endoftext|><|endoftext|>"), (True, "a")])
def test_special_tokens_among_others_are_shown_or_not(
    open_client: Callable[..., Any], build_runner: Any, is_skipped: Any, text: str, is_stream: bool
) -> None:
    """If `ignore_eos` allows sampling them. Either way they are listed and counted."""
    client = open_client(runner=build_runner(script=b"a"))
    body: Json = {"prompt": "p", "max_tokens": 3, "ignore_eos": True, "logprobs": 0, "skip_special_tokens": is_skipped}
    if is_stream:
        choices = [chunk["choices"][0] for chunk in client.stream(**body)]
    else:
        choices = client.complete(**body).json()["choices"]
    assert "".join(choice["text"] for choice in choices) == text
    assert [offset for choice in choices for offset in choice["logprobs"]["text_offset"]] == (
        [0, 1, 14] if is_skipped is False else [0, 1, 1]
    )
    assert [token for choice in choices for token in choice["logprobs"]["tokens"]] == ["a", *["<|endoftext|>"] * 2]


@pytest.mark.parametrize("is_skipped", [None, False])
def test_chats_and_the_plain_path_hide_special_tokens_too(
    open_client: Callable[..., Any], build_runner: Any, is_skipped: bool | None
) -> None:
    """A stop token is never part of the text; the option is about those before it."""
    runner = build_runner(script=b"a")
    runner.config = replace(runner.config, eos_token_ids=())
    client = open_client(runner=runner, chat_template=ChatTemplate("{{ messages[0].content }}", origin="here"))
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "logprobs": True}
    [choice] = client.post("/v1/chat/completions", json=body | {"skip_special_tokens": is_skipped}).json()["choices"]
    assert choice["message"]["content"] == ("a" if is_skipped is None else "a<|endoftext|>")
    assert [token["token"] for token in choice["logprobs"]["content"]] == ["a", "<|endoftext|>"]
    assert client.get("/hi?max_new_tokens=2").json()["generated_sequences"] == ["hia"]


def test_an_echoed_prompt_keeps_its_special_tokens(client: Any) -> None:
    body = {"prompt": "<|endoftext|>b", "max_tokens": 1, "echo": True, "logprobs": 0, "skip_special_tokens": True}
    choice = choice_of(client.complete(**body))
    assert choice["text"] == "<|endoftext|>b "
    assert choice["logprobs"]["text_offset"] == [0, 13, 14]


TOO_LONG_STOP = ["é" * 2000, "b" * 5000]


@pytest.mark.reported("an attack with a thousand prompts, long lists of token ids and long stop sequences")
@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("stop", TOO_LONG_STOP, "9000 bytes of UTF-8 together; the maximum is 8192"),
        ("stop", "a" * 8193, "8193 bytes of UTF-8 together; the maximum is 8192"),
        ("bad_words", ["c" * 256] * 33, "8448 bytes of UTF-8 together; the maximum is 8192"),
        ("allowed_token_ids", [1] * 65537, "at most 65536 items"),
        ("stop_token_ids", [1] * 65537, "at most 65536 items"),
    ],
)
def test_stop_sequences_and_bad_words_are_bounded(
    open_client: Callable[..., Any], field: str, value: Any, limit: str
) -> None:
    answer = open_client(max_body_bytes=1 << 20).complete(prompt="a", **{field: value})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == field
    assert field in error["message"]
    assert limit in error["message"]


def test_stop_sequences_of_8192_bytes_are_accepted(client: Any) -> None:
    answer = client.complete(prompt="a", max_tokens=50, stop=["lo", "é" * 4095])
    assert choice_of(answer)["text"] == " hel"


def test_duplicate_token_ids_count_once(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted = note_submissions(client, monkeypatch)
    client.complete(prompt="a", allowed_token_ids=[104, 32, 104] * 100, stop_token_ids=[1, 2, 1] * 100)
    [request] = submitted
    assert request.params.allowed_token_ids == (104, 32)
    assert request.params.stop_token_ids == (1, 2)


@pytest.mark.reported("a trial of each field at its bound: log-probabilities took 2.4 GB and held up streams for 3 s")
@pytest.mark.parametrize(
    ("body", "param", "num_logprobs"),
    [
        ({"prompt": [[1] * 200] * 63, "prompt_logprobs": 20, "max_tokens": 1}, "prompt_logprobs", 63 * 200 * 21),
        ({"prompt": [[1] * 200] * 63, "logprobs": 20, "echo": True, "max_tokens": 0}, "logprobs", 63 * 200 * 21),
        ({"prompt": ["a"] * 63, "logprobs": 20, "max_tokens": 200}, "logprobs", 63 * 200 * 21),
        ({"prompt": ["a"] * 16, "logprobs": 20, "max_tokens": 200, "n": 4}, "logprobs", 64 * 200 * 21),
    ],
)
def test_log_probabilities_of_one_answer_are_bounded(
    open_client: Callable[..., Any], body: Json, param: str, num_logprobs: int
) -> None:
    """A stream does not keep them in memory."""
    client = open_client(max_prompts=100, max_n=4, max_logprobs=20, max_waiting_requests=100)
    answer = client.complete(**body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert f"{param} requests {num_logprobs} log-probabilities" in answer.json()["error"]["message"]
    assert "at most 262144" in answer.json()["error"]["message"]
    fewer = {**body, "prompt": body["prompt"][:1]}
    assert client.complete(**fewer).status_code == 200


def test_more_tokens_than_the_context_are_refused_for_that(client: Any) -> None:
    """Also if their log-probabilities would be too many."""
    error = client.complete(prompt="a", logprobs=5, max_tokens=10**9).json()["error"]
    assert error["param"] == "max_tokens"
    assert "maximum context length" in error["message"]
