"""`/v1/files` and `/v1/batches` over HTTP: ownership, refusals and error codes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.batch.store.ports import OpenBatchService
from distilgpt2_api.batch.store.store import Store
from distilgpt2_api.core.caller import ApiKey, CallerLimits, digest_of
from distilgpt2_api.server.auth.access import Access
from distilgpt2_api.server.auth.api_keys import KeyRing

KEYS = {name: f"dg2-0123456789-{name}" for name in ("alice", "bob")}
LINE: dict[str, Any] = {"method": "POST", "url": "/v1/completions", "body": {"prompt": "a", "max_tokens": 20}}
ASKED = {"endpoint": "/v1/completions", "completion_window": "24h"}
JOINT = "xYzZy"


@pytest.fixture
def client(open_client: Callable[..., Any], open_batch_service: OpenBatchService) -> Any:
    return open_client(open_batch_service=open_batch_service)


def lines(count: int, **body: object) -> bytes:
    texts = [json.dumps({"custom_id": f"{n}", **LINE, "body": {**LINE["body"], **body}}) for n in range(count)]
    return "\n".join(texts).encode()


def upload(client: Any, content: bytes = b"content", **options: Any) -> Any:
    return client.post("/v1/files", files={"file": ("name", content)}, data={"purpose": "batch"}, **options)


def create(client: Any, content: bytes, **options: Any) -> Any:
    file_id = upload(client, content, **options).json()["id"]
    return client.post("/v1/batches", json={"input_file_id": file_id, **ASKED}, **options).json()


def wait_answer(client: Any, path: str, is_awaited: Callable[[Any], bool], **options: Any) -> Any:
    """Asks again until the answer is the awaited one, and returns it."""

    async def until_answered() -> Any:
        async with asyncio.timeout(20):
            while not is_awaited(answer := await client._http.get(path, **options)):  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(0.01)
        return answer

    return client.runner.run(until_answered())


def wait_end(client: Any, batch_id: str, **options: Any) -> Any:
    ended = {"completed", "failed", "cancelled"}
    return wait_answer(
        client, f"/v1/batches/{batch_id}", lambda answer: answer.json()["status"] in ended, **options
    ).json()


def form(*parts: tuple[str, bytes], end: str = f"--{JOINT}--\r\n") -> dict[str, Any]:
    """A multipart form: each part's header after `form-data`, and its content."""
    body = b"".join(
        f"--{JOINT}\r\nContent-Disposition: form-data{header}\r\n\r\n".encode() + content + b"\r\n"
        for header, content in parts
    )
    return {"content": body + end.encode(), "headers": {"content-type": f"multipart/form-data; boundary={JOINT}"}}


FILE = ('; name="file"; filename="f"', b"content")
PURPOSE = ('; name="purpose"', b"batch")


def test_without_a_store_the_error_names_the_setting(open_client: Callable[..., Any]) -> None:
    client = open_client()
    for method, path in (
        ("GET", "/v1/files"),
        ("POST", "/v1/files"),
        ("GET", "/v1/files/file-1"),
        ("DELETE", "/v1/files/file-1"),
        ("GET", "/v1/files/file-1/content"),
        ("GET", "/v1/batches"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/batches/batch_1"),
        ("POST", "/v1/batches/batch_1/cancel"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_enabled")
        assert "batch_store" in answer.json()["error"]["message"]


def test_a_batch_runs_in_process_and_is_not_counted_as_http_requests(client: Any) -> None:
    """Its lines are neither logged nor counted as requests; its result is."""
    batch = wait_end(client, create(client, lines(5))["id"])
    assert (batch["status"], batch["request_counts"]) == ("completed", {"total": 5, "completed": 5, "failed": 0})
    output = client.get(f"/v1/files/{batch['output_file_id']}/content")
    assert output.headers["content-type"] == "application/octet-stream"
    answers = [json.loads(text) for text in output.content.split(b"\n")[:-1]]
    expected = client.complete(**LINE["body"]).json()["choices"]
    assert [answer["response"]["body"]["choices"] for answer in answers] == [expected] * 5
    routes = [call.kwargs["route"] for call in client.scene.log.calls]
    assert routes.count("/v1/completions") == 1
    # A batch's end is in the store shortly before it is counted.
    counted = 'distilgpt2_batches_total{status="completed"} 1.0'
    metrics = wait_answer(client, "/metrics", lambda answer: counted in answer.text).text
    assert 'distilgpt2_batch_lines_total{result="completed"} 5.0' in metrics
    assert 'route="/v1/completions",status="200"} 1.0' in metrics
    assert client.get("/v1/files").json()["has_more"] is False


@pytest.mark.reported("the page said that whatever is wrong with a line fails the batch, and it did not")
def test_a_model_that_is_not_served_fails_the_batch_before_its_lines_run(client: Any) -> None:
    """As in OpenAI's API, with the same code and parameter. Every accepted form of the served name is valid."""
    content = lines(3, model="tiny").replace(b'"model": "tiny"', b'"model": "gpt-4o"', 1)
    batch = wait_end(client, create(client, content)["id"])
    assert (batch["status"], batch["output_file_id"], batch["error_file_id"]) == ("failed", None, None)
    (error,) = batch["errors"]["data"]
    assert (error["code"], error["param"], error["line"]) == ("model_not_found", "body.model", 1)
    assert "the model 'gpt-4o' does not exist here" in error["message"]


@pytest.mark.reported("the page said that whatever is wrong with a line fails the batch, and it did not")
@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"nonsense": 1}, "unknown_parameter", "nonsense"),
        ({"temperature": 9}, None, "temperature"),
        ({"max_tokens": 100_000}, "context_length_exceeded", "max_tokens"),
        ({"model": 5}, None, "model"),
    ],
)
def test_a_refused_line_gets_its_error_and_the_others_continue(
    client: Any, body: dict[str, object], code: str | None, param: str
) -> None:
    """As in OpenAI's API: the batch completes, and the line is in the error file with its status."""
    wrong = lines(1, **body).replace(b'"custom_id": "0"', b'"custom_id": "wrong"')
    batch = wait_end(client, create(client, lines(2) + b"\n" + wrong)["id"])
    assert (batch["status"], batch["errors"]) == ("completed", None)
    assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    (error,) = map(json.loads, client.get(f"/v1/files/{batch['error_file_id']}/content").content.splitlines())
    assert (error["custom_id"], error["error"], error["response"]["status_code"]) == ("wrong", None, 400)
    told = error["response"]["body"]["error"]
    assert (told["code"], told["param"]) == (code, param)


def test_files_and_batches_belong_to_their_key(
    open_client: Callable[..., Any], open_batch_service: OpenBatchService
) -> None:
    """Other callers get 404. The owner's rate limits do not delay a batch."""
    keys = tuple(ApiKey(name=name, digest=digest_of(key.encode())) for name, key in KEYS.items())
    limits = CallerLimits(max_requests=1, tokens_per_s=1.0, burst_tokens=30)
    client = open_client(
        open_batch_service=open_batch_service, access=Access(keys=KeyRing(keys, default_limits=limits))
    )
    alice, bob = ({"headers": {"authorization": f"Bearer {key}"}} for key in KEYS.values())
    batch = wait_end(client, create(client, lines(6), **alice)["id"], **alice)
    assert batch["request_counts"]["completed"] == 6
    for path in (f"/v1/files/{batch['input_file_id']}", f"/v1/files/{batch['output_file_id']}/content"):
        assert client.get(path, **alice).status_code == 200
        assert client.get(path, **bob).json()["error"]["code"] == "not_found"
    assert client.get(f"/v1/batches/{batch['id']}", **bob).status_code == 404
    assert client.post(f"/v1/batches/{batch['id']}/cancel", **bob).status_code == 404
    assert client.get("/v1/batches", **bob).json()["data"] == []
    assert client.get("/v1/files", **bob).json()["data"] == []
    assert client.post("/v1/batches", json={"input_file_id": batch["input_file_id"], **ASKED}, **bob).status_code == 404


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([FILE], "purpose"),
        ([PURPOSE], "file"),
        ([FILE, ('; name="purpose"', b"fine-tune")], "purpose"),
        ([FILE, PURPOSE, PURPOSE], "purpose"),
        ([FILE, FILE, PURPOSE], "file"),
        ([('; name="file"', b"content"), PURPOSE], "file"),
        ([FILE, PURPOSE, ('; name="model"', b"x")], "model"),
        ([FILE, PURPOSE, ('; name="expires_after[seconds]"', b"3600")], "expires_after[anchor]"),
        *(
            (
                [
                    FILE,
                    PURPOSE,
                    ('; name="expires_after[anchor]"', b"created_at"),
                    ('; name="expires_after[seconds]"', value),
                ],
                "expires_after[seconds]",
            )
            for value in (b"", b"3599", b"2592001", b"-1", b"1e6", b"99999999999999999999", "٣٦٠٠".encode())
        ),
        ([FILE, ('; name="purpose"', b"\xff")], "purpose"),
        ([FILE, ("", b"content")], None),
        ([('; name="x"', b"x" * 5000), PURPOSE], None),
        ([*((f'; name="{n}"', b"") for n in range(17)), PURPOSE], None),
        ([(f'; name="file"; filename="{"x" * 9000}"', b"content"), PURPOSE], None),
    ],
)
def test_an_invalid_form_is_refused_by_name_and_leaves_nothing(client: Any, parts: Any, param: str | None) -> None:
    answer = client.post("/v1/files", **form(*parts))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert client.get("/v1/files").json()["data"] == []
    assert upload(client, b"x" * 20_000).status_code == 200


@pytest.mark.reported("a form whose number was checked by its first nine digits only")
@pytest.mark.parametrize("seconds", [b"000003600999999999", b"0000000000000000003600", b"3600\n", b" 3600", b"3_600"])
def test_the_expiry_that_is_checked_is_the_one_that_is_used(client: Any, seconds: bytes) -> None:
    anchor = ('; name="expires_after[anchor]"', b"created_at")
    answer = client.post("/v1/files", **form(FILE, PURPOSE, anchor, ('; name="expires_after[seconds]"', seconds)))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "expires_after[seconds]")


@pytest.mark.reported("an upload with a boundary of 257 characters")
@pytest.mark.parametrize("length", [71, 256, 257, 10_000])
def test_a_boundary_that_is_too_long_is_refused_with_its_limit(client: Any, length: int) -> None:
    media_type = f"multipart/form-data; boundary={'b' * length}"
    answer = client.post("/v1/files", content=b"content", headers={"content-type": media_type})
    assert answer.status_code == 400
    assert "at most 70" in answer.json()["error"]["message"]
    assert client.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize(
    "media_type",
    [
        'multipart/form-data; boundary="a"b',
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary*=utf-8''a",
        "multipart/form-data; boundary=\xe9",
        "multipart/form-data;;;=;boundary=\\",
        'multipart/form-data; boundary="',
    ],
)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"--a",
        b"--a\r\n\r\n",
        b"--a\r\n: x\r\n\r\n",
        b"--a\r\n" + b"x" * 5000,
        b"--a\r\nx: y" * 20 + b"\r\n\r\n--a--",
    ],
)
def test_no_malformed_form_causes_an_internal_error(client: Any, media_type: str, content: bytes) -> None:
    headers = {"content-type": media_type.encode("latin-1")}
    assert client.post("/v1/files", content=content, headers=headers).status_code in {400, 415}


@pytest.mark.parametrize("cut", [3, 10, 60, 200])
def test_a_form_that_is_cut_short_is_refused(client: Any, cut: int) -> None:
    options = form(FILE, PURPOSE)
    options["content"] = options["content"][:-cut]
    assert client.post("/v1/files", **options).status_code == 400
    assert client.get("/v1/files").json()["data"] == []


def test_fields_and_file_come_in_any_order_and_in_any_pieces(client: Any) -> None:
    for parts in ([FILE, PURPOSE], [PURPOSE, FILE]):
        options = form(*parts)

        async def single_bytes(body: bytes = options["content"]) -> Any:
            for byte in body:
                yield bytes([byte])

        answer = client.post("/v1/files", content=single_bytes(), headers=options["headers"])
        assert answer.status_code == 200
        assert client.get(f"/v1/files/{answer.json()['id']}/content").content == b"content"


@pytest.mark.parametrize("media_type", ["application/json", "multipart/form-data", "multipart/mixed; boundary=x", ""])
def test_a_body_that_is_not_a_form_is_415(client: Any, media_type: str) -> None:
    answer = client.post("/v1/files", content=b"content", headers={"content-type": media_type})
    assert answer.status_code == 415


def test_a_file_that_is_too_large_is_413_declared_or_not(client: Any) -> None:
    assert upload(client, b"x" * 20_000).status_code == 200
    assert upload(client, b"x" * 200_000).status_code == 413
    options = form(('; name="file"; filename="f"', b"x" * 20_001), PURPOSE)

    async def undeclared() -> Any:
        yield options["content"]

    assert client.post("/v1/files", content=undeclared(), headers=options["headers"]).status_code == 413
    assert len(client.get("/v1/files").json()["data"]) == 1


def test_quota_errors_say_not_to_retry(client: Any) -> None:
    assert upload(client, b"x" * 20_000).status_code == 200
    answer = upload(client, b"x" * 20_000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "quota_exceeded")
    assert client.scene.app.state.service.uploads.num_bytes == 0


def test_an_upload_that_stops_is_cut(open_client: Callable[..., Any], open_batch_service: OpenBatchService) -> None:
    client = open_client(open_batch_service=open_batch_service, body_timeout_s=0.05)
    options = form(FILE, PURPOSE)

    async def stopping() -> Any:
        yield options["content"][:80]
        await asyncio.Event().wait()

    assert client.post("/v1/files", content=stopping(), headers=options["headers"]).status_code == 408
    assert client.get("/v1/files").json()["data"] == []


def test_a_file_is_deleted_unless_a_batch_reads_it(
    open_client: Callable[..., Any], open_batch_service: OpenBatchService, build_runner: Any
) -> None:
    runner = build_runner(is_gated=True)
    client = open_client(runner=runner, open_batch_service=open_batch_service)
    batch = create(client, lines(1))
    path = f"/v1/files/{batch['input_file_id']}"
    answer = client.request("DELETE", path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert answer.headers["x-should-retry"] == "false"
    assert client.post(f"/v1/batches/{batch['id']}/cancel").json()["status"] == "cancelling"
    assert wait_end(client, batch["id"])["status"] == "cancelled"
    runner.open_gate()
    assert client.request("DELETE", path).json() == {
        "id": batch["input_file_id"],
        "object": "file",
        "deleted": True,
    }
    assert client.get(path).status_code == 404


def test_a_head_of_a_content_says_its_length(client: Any) -> None:
    file_id = upload(client, b"content").json()["id"]
    answer = client.request("HEAD", f"/v1/files/{file_id}/content")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "7", b"")


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "order=up", "purpose=assistants", "limit=x"])
def test_an_invalid_list_query_is_400(client: Any, query: str) -> None:
    answer = client.get(f"/v1/files?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0])


def test_an_unknown_list_cursor_is_404(client: Any) -> None:
    for path in ("/v1/files?after=file-none", "/v1/batches?after=batch_none"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "after")


def test_an_interactive_request_runs_before_a_batch(
    open_client: Callable[..., Any], open_batch_service: OpenBatchService, build_runner: Any
) -> None:
    """Even if the batch's lines fill the engine, an interactive request is answered while they wait."""
    client = open_client(runner=build_runner(script=b"x" * 200), open_batch_service=open_batch_service)
    batch = create(client, lines(60, max_tokens=200, ignore_eos=True))
    assert client.complete(prompt="now", max_tokens=3).status_code == 200
    assert client.get(f"/v1/batches/{batch['id']}").json()["status"] != "completed"
    assert wait_end(client, batch["id"])["request_counts"]["completed"] == 60


def test_a_store_failure_tells_clients_to_retry(client: Any, store: Store) -> None:
    with store.writing() as connection:
        connection.exec_driver_sql("DROP TABLE distilgpt2_file_chunks")
    answer = upload(client)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
    assert answer.headers["x-should-retry"] == "true"
    assert "sqlite" not in answer.text.lower()
