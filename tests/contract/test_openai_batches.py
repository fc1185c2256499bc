"""OpenAI's own client with files and batches, against the live server."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

Json = dict[str, Any]
ENDED = {"completed", "failed", "expired", "cancelled"}


@pytest.fixture(scope="module")
def batch_server(launch: Callable[..., Any], model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = launch(model=model_folder, batch_store=tmp_path_factory.mktemp("store"))
    server.wait_listening()
    server.wait_ready()
    return server


@pytest.fixture
def client(batch_server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{batch_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def line(custom_id: str, *, url: str = "/v1/completions", **body: object) -> bytes:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}).encode() + b"\n"


def upload(client: openai.OpenAI, *lines: bytes) -> openai.types.FileObject:
    return client.files.create(file=("input.jsonl", io.BytesIO(b"".join(lines))), purpose="batch")


def end_of(client: openai.OpenAI, batch_id: str, wait_until: Callable[..., Any]) -> openai.types.Batch:
    def ended() -> openai.types.Batch | None:
        batch = client.batches.retrieve(batch_id)
        return batch if batch.status in ENDED else None

    batch: openai.types.Batch = wait_until(ended, "the batch ends")
    return batch


def lines_of(client: openai.OpenAI, file_id: str | None) -> list[Json]:
    assert file_id is not None
    return [json.loads(text) for text in client.files.content(file_id).read().split(b"\n")[:-1]]


def test_a_batch_is_answered_as_the_route_would(client: openai.OpenAI, wait_until: Callable[..., Any]) -> None:
    """Output and errors are in the input's order. Each answer equals the route's for the same body."""
    prompts = [f"once {number}" for number in range(20)]
    body: Json = {"max_tokens": 5, "seed": 1, "temperature": 0.5}
    file = upload(client, *(line(prompt, prompt=prompt, **body) for prompt in prompts), line("bad", prompt="a", n=-1))
    created = client.batches.create(
        input_file_id=file.id, endpoint="/v1/completions", completion_window="24h", metadata={"who": "me"}
    )
    assert (created.object, created.status, created.metadata) == ("batch", "validating", {"who": "me"})
    batch = end_of(client, created.id, wait_until)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 21, "completed": 20, "failed": 1}
    assert batch.in_progress_at is not None
    assert batch.expires_at == batch.created_at + 86400

    output = lines_of(client, batch.output_file_id)
    assert [answer["custom_id"] for answer in output] == prompts
    assert len({answer["id"] for answer in output}) == 20
    for answer in output:
        assert answer["error"] is None
        assert answer["response"]["status_code"] == 200
        asked = client.completions.create(model=batch.model or "", prompt=answer["custom_id"], **body)
        assert answer["response"]["body"]["choices"][0]["text"] == asked.choices[0].text
    assert batch.usage is not None
    assert batch.usage.output_tokens == sum(a["response"]["body"]["usage"]["completion_tokens"] for a in output)
    [failed] = lines_of(client, batch.error_file_id)
    assert failed["response"]["status_code"] == 400
    assert failed["response"]["body"]["error"]["param"] == "n"


def test_files_are_uploaded_listed_read_and_deleted(client: openai.OpenAI) -> None:
    content = line("a", prompt="a") * 3
    files = [
        client.files.create(
            file=(f"ärger {number}.jsonl", content),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
        for number in range(3)
    ]
    first = files[0]
    assert (first.object, first.bytes, first.purpose, first.status) == ("file", len(content), "batch", "processed")
    assert first.filename == "ärger 0.jsonl"
    assert first.expires_at == first.created_at + 3600
    assert client.files.retrieve(first.id) == first
    assert client.files.content(first.id).read() == content
    listed = [file.id for file in client.files.list(purpose="batch", order="desc", limit=2)]  # in pages of two
    assert [file_id for file_id in listed if file_id in {file.id for file in files}] == [f.id for f in reversed(files)]
    deleted = client.files.delete(first.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (first.id, True, "file")
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(first.id)


def test_an_invalid_input_fails_as_a_whole_and_names_the_line(
    client: openai.OpenAI, wait_until: Callable[..., Any]
) -> None:
    file = upload(client, line("a", prompt="a"), b"{\n", line("a", prompt="b"), line("c", url="/v1/score", input="c"))
    created = client.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h")
    batch = end_of(client, created.id, wait_until)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(error.line, error.code) for error in batch.errors.data] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "url_mismatch"),
    ]
    assert batch.output_file_id is batch.error_file_id is None


def test_a_cancelled_batch_keeps_its_answers(client: openai.OpenAI, wait_until: Callable[..., Any]) -> None:
    lines = [line(f"{number}", prompt="a", max_tokens=400, ignore_eos=True) for number in range(300)]
    created = client.batches.create(
        input_file_id=upload(client, *lines).id, endpoint="/v1/completions", completion_window="24h"
    )

    def has_answers() -> bool:
        counts = client.batches.retrieve(created.id).request_counts
        return counts is not None and counts.completed > 0

    wait_until(has_answers, "some lines are answered")
    with pytest.raises(openai.ConflictError):
        client.files.delete(created.input_file_id)
    assert client.batches.cancel(created.id).status == "cancelling"
    batch = end_of(client, created.id, wait_until)
    assert batch.status == "cancelled"
    output, errors = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    assert len(errors) > 0
    assert {error["error"]["code"] for error in errors} == {"batch_cancelled"}
    assert sorted(int(each["custom_id"]) for each in output + errors) == list(range(300))
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(created.id)


def test_batches_are_listed_newest_first_in_pages(client: openai.OpenAI) -> None:
    file = upload(client, line("a", prompt="a"))
    created = [
        client.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h").id
        for _ in range(3)
    ]
    listed = [batch.id for batch in client.batches.list(limit=2)]
    assert listed[:3] == created[::-1]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"input_file_id": "file-none"}, openai.NotFoundError),
        ({"endpoint": "/v1/embeddings"}, openai.BadRequestError),
        ({"completion_window": "1h"}, openai.BadRequestError),
        ({"metadata": {"k": "v" * 513}}, openai.BadRequestError),
    ],
)
def test_invalid_batches_are_refused(client: openai.OpenAI, change: Json, error: type[Exception]) -> None:
    file = upload(client, line("a", prompt="a"))
    options: Json = {"input_file_id": file.id, "endpoint": "/v1/completions", "completion_window": "24h"}
    with pytest.raises(error):
        client.batches.create(**(options | change))


def test_objects_have_the_keys_of_openais_and_no_others(client: openai.OpenAI, batch_server: Any) -> None:
    """All keys that OpenAI's client knows, except those that are deprecated and null."""
    file = upload(client, line("a", prompt="a"))
    body = {"input_file_id": file.id, "endpoint": "/v1/completions", "completion_window": "24h"}
    batch = batch_server.post("/v1/batches", json=body).json()
    assert batch.keys() == openai.types.Batch.model_fields.keys()
    assert batch["usage"].keys() == openai.types.BatchUsage.model_fields.keys()
    kept = batch_server.get(f"/v1/files/{file.id}").json()
    assert kept.keys() == openai.types.FileObject.model_fields.keys() - {"status_details"}
    page = batch_server.get("/v1/batches").json()
    assert page.keys() == {"object", "data", "first_id", "last_id", "has_more"}
