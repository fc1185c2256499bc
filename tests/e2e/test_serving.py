"""The service over real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import pytest

UPGRADE = b"POST /tokenize HTTP/1.1\r\nhost: x\r\nconnection: close, upgrade\r\nupgrade: h2c\r\n"
GREEDY = {"temperature": 0, "max_tokens": 40, "ignore_eos": True}


def exchange(server: Any, request: bytes, *, is_cut: bool = False) -> bytes:
    """Send raw bytes and read raw bytes until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request)
        if is_cut:
            connection.shutdown(socket.SHUT_WR)
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def num_aborted(server: Any) -> float:
    return float(server.metric("distilgpt2_sequences_total", finish_reason="abort"))


def test_a_prompt_in_the_path_is_continued(server: Any) -> None:
    prompt = "Once upon a time/there was? 東京 🎉 %2F"
    answer = server.get(
        f"/{quote(prompt, safe='/')}", params={"max_new_tokens": 5, "num_return_sequences": 2, "seed": 1}
    )
    texts = answer.json()["generated_sequences"]
    assert len(texts) == 2
    assert all(text.startswith(prompt) for text in texts)


def test_a_seed_gives_the_same_text_again(server: Any) -> None:
    first, second, other = (server.get(f"/once?seed={seed}").json() for seed in (3, 3, 4))
    assert first == second != other


def test_tokens_arrive_while_the_sequence_runs(server: Any, read_events: Any) -> None:
    """The first event arrives while the sequence is running, as another connection shows."""
    with server.stream(max_tokens=2000) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["transfer-encoding"] == "chunked"
        assert "content-encoding" not in response.headers
        events = read_events(response)
        assert next(events)["choices"][0]["finish_reason"] is None
        assert server.metric("distilgpt2_running_sequences") == 1
        assert list(events)[-1] == "[DONE]"


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_hang_up_aborts_the_request(server: Any, wait_until: Callable[..., Any], is_stream: bool) -> None:
    """Streamed and whole: the metrics show it, and nothing keeps running."""
    before = num_aborted(server)
    body = json.dumps({"prompt": "once", "max_tokens": 16000, "ignore_eos": True, "stream": is_stream, "n": 2}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(head.encode() + b"\r\n\r\n" + body)
    wait_until(lambda: server.metric("distilgpt2_running_sequences") == 2, "both sequences run")
    connection.close()
    wait_until(lambda: server.metric("distilgpt2_running_sequences") == 0, "nothing runs any more")
    wait_until(lambda: num_aborted(server) == before + 2, "all are counted")
    assert server.metric("distilgpt2_kv_cache_usage_ratio") == 0
    wait_until(lambda: server.metric("distilgpt2_client_disconnects_total") >= 1, "the hang-ups are counted")


def test_concurrent_requests_get_the_same_texts_as_alone(server: Any, read_events: Any) -> None:
    prompts = [f"prompt number {number}" for number in range(24)]
    alone = [server.complete(prompt=prompt, **GREEDY).json()["choices"][0]["text"] for prompt in prompts[:4]]

    def streamed(prompt: str) -> str:
        with server.stream(prompt=prompt, **GREEDY) as response:
            events = list(read_events(response))
        assert events[-1] == "[DONE]"
        return "".join(choice["text"] for event in events[:-1] for choice in event["choices"])

    with ThreadPoolExecutor(24) as threads:
        together = list(threads.map(streamed, prompts))
    assert together[:4] == alone


def test_a_text_that_repeats_itself_takes_fewer_steps_and_is_the_same(
    server: Any, launch: Callable[..., Any], read_events: Any
) -> None:
    """The same as on a server without drafts."""
    other = launch(max_draft_tokens=0)
    body = {"prompt": "once", "temperature": 0, "max_tokens": 400, "ignore_eos": True}
    steps = "distilgpt2_step_duration_seconds_count"
    num_steps, num_accepted = server.metric(steps), server.metric("distilgpt2_accepted_draft_tokens_total")
    with server.stream(**body) as response:
        events = list(read_events(response))
    num_steps = server.metric(steps) - num_steps
    num_accepted = server.metric("distilgpt2_accepted_draft_tokens_total") - num_accepted

    assert num_accepted > 100
    assert num_steps == 400 - num_accepted
    other.wait_listening()
    other.wait_ready()
    assert (
        "".join(event["choices"][0]["text"] for event in events[:-1])
        == other.complete(**body).json()["choices"][0]["text"]
    )
    assert other.metric("distilgpt2_draft_tokens_total") == 0


def test_a_stop_sequence_split_over_tokens_is_found_in_a_stream(server: Any, read_events: Any) -> None:
    """Each token is one byte: any stop sequence of three is split."""
    whole = server.complete(prompt="once", **GREEDY).json()["choices"][0]["text"]
    stop = whole[10:13]
    with server.stream(stop=stop, **GREEDY) as response:
        text = "".join(event["choices"][0]["text"] for event in read_events(response) if event != "[DONE]")
    assert text == whole[: whole.index(stop)]


def test_scores_of_the_prompt_are_those_of_its_generation(server: Any) -> None:
    """Greedy tokens have the same log-probabilities when they are scored as a prompt."""
    drawn = server.complete(prompt="once", temperature=0, max_tokens=5, ignore_eos=True, logprobs=1).json()["choices"][
        0
    ]
    ids = list(b"once") + server_ids(server, drawn["text"])
    scored = server.complete(prompt=ids, max_tokens=0, echo=True, logprobs=1).json()["choices"][0]["logprobs"]
    expected = drawn["logprobs"]["token_logprobs"]
    if len(ids) == 4 + len(expected):  # random bytes may not be UTF-8
        assert scored["token_logprobs"][4:] == pytest.approx(expected, abs=1e-3)
    tops = [max(top.values()) for top in scored["top_logprobs"][1:]]
    assert all(top >= own for top, own in zip(tops, scored["token_logprobs"][1:], strict=True))


def server_ids(server: Any, text: str) -> list[int]:
    ids: list[int] = httpx.post(f"{server.url}/tokenize", json={"prompt": text}).json()["tokens"]
    return ids


def test_a_connection_is_kept_for_more_requests(server: Any) -> None:
    with httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            assert client.get("/livez").status_code == 200
            assert client.post("/v1/completions", json={"prompt": ""}).status_code == 400
            assert client.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}).status_code == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"404"),
        (b"BREW /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"501"),
        (b"PUT /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /%FF HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"400"),
        (b"HEAD /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"200"),
        (b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n", b"413"),
        (UPGRADE + b'content-length: 15\r\n\r\n{"prompt":"ab"}', b"200"),
    ],
)
def test_strange_requests_get_a_status(server: Any, request_bytes: bytes, status: bytes) -> None:
    answer = exchange(server, request_bytes)
    assert answer.split(b" ", 2)[1] == status
    assert server.get("/readyz").status_code == 200


def test_a_path_of_raw_bytes_is_a_prompt_or_refused(server: Any) -> None:
    """Bytes above 127 that no client should send unencoded."""
    answer = exchange(server, "GET /東?max_new_tokens=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    assert answer.split(b" ", 2)[1] in {b"200", b"400"}
    assert server.get("/readyz").status_code == 200


def test_a_body_shorter_than_declared_harms_no_other_request(server: Any) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    exchange(server, head, is_cut=True)
    assert server.get("/readyz").status_code == 200
    assert "Traceback" not in server.log


def test_the_log_is_json_without_prompts(server: Any, wait_until: Callable[..., Any]) -> None:
    """A request's line is written after its answer is sent."""

    def logged_routes() -> list[str]:
        whole_lines = server.log.split("\n")[:-1]
        lines = [json.loads(line) for line in whole_lines if line.startswith("{")]
        return [line["route"] for line in lines if line["event"] == "request"]

    server.get("/a%20secret%20prompt", params={"max_new_tokens": 1})
    wait_until(lambda: "/{prompt}" in logged_routes(), "the request's line")
    assert "secret" not in server.log
