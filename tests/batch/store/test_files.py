"""Files in the store: visibility, quotas and expiry."""

from __future__ import annotations

from typing import Any

import pytest

from distilgpt2_api.batch.store.files import UPLOAD_S
from distilgpt2_api.batch.store.objects import StoreLimits
from distilgpt2_api.core.errors import ConflictError, NotFoundError, QuotaError, StoreError


def listed(scene: Any, caller: str = "alice", **options: Any) -> list[str]:
    options = {"purpose": None, "after": None, "limit": 100, "is_ascending": False, **options}
    return [file.file_id for file in scene.files.list(caller=caller, **options).items]


def test_a_file_is_read_as_it_was_written(scene: Any) -> None:
    content = bytes(range(256)) * 20
    file = scene.upload(content)
    assert (file.num_bytes, file.filename, file.created_s) == (len(content), "input.jsonl", scene.clock.now_s)
    assert b"".join(scene.files.chunks(file.file_id)) == content
    assert scene.files.find(file.file_id, caller="alice") == file


def test_an_empty_file_can_be_stored(scene: Any) -> None:
    assert list(scene.files.chunks(scene.upload(b"").file_id)) == []


def test_a_file_is_visible_only_to_its_caller(scene: Any) -> None:
    file = scene.upload(b"content")
    for ask in (scene.files.find, scene.files.delete):
        with pytest.raises(NotFoundError):
            ask(file.file_id, caller="bob")
    assert listed(scene, "bob") == []
    with pytest.raises(NotFoundError):
        listed(scene, "bob", after=file.file_id)


def test_an_incomplete_upload_is_invisible(scene: Any) -> None:
    file_id = scene.files.begin(caller="alice")
    scene.files.append(file_id, caller="alice", content=b"content")
    assert listed(scene) == []
    with pytest.raises(NotFoundError):
        scene.files.find(file_id, caller="alice")
    scene.files.discard(file_id)
    with pytest.raises(StoreError):
        scene.files.append(file_id, caller="alice", content=b"content")


@pytest.mark.parametrize("is_ascending", [True, False])
def test_pages_continue_after_the_last_file_even_if_files_are_deleted(scene: Any, is_ascending: bool) -> None:
    """Even for files created at the same time."""
    made = []
    for number in range(7):
        scene.clock.now_s += number % 2
        made.append(scene.upload(b"content").file_id)
    everything = listed(scene, is_ascending=is_ascending)
    assert sorted(everything) == sorted(made)
    first = scene.files.list(caller="alice", purpose=None, after=None, limit=3, is_ascending=is_ascending)
    assert first.has_more
    scene.files.delete(everything[0], caller="alice")
    rest = listed(scene, after=first.items[-1].file_id, limit=4, is_ascending=is_ascending)
    assert [file.file_id for file in first.items] + rest == everything


def test_a_list_can_be_filtered_by_purpose(scene: Any) -> None:
    batch = scene.run(scene.create())
    assert listed(scene, purpose="batch_output") == [batch.output_file_id]
    assert listed(scene, purpose="batch") == [batch.input_file_id]


def test_quotas_are_per_caller(build_scene: Any) -> None:
    scene = build_scene(limits=StoreLimits(max_files=2, max_bytes=3000, max_open_batches=1, expiry_s=100.0))
    scene.upload(b"x" * 2000)
    with pytest.raises(QuotaError, match="would have more than 3000 bytes"):
        scene.upload(b"x" * 1500)
    with pytest.raises(QuotaError, match="you have 2 files; the limit is 2"):  # including the incomplete one
        scene.upload(b"")
    assert scene.upload(b"x" * 2000, caller="bob").num_bytes == 2000


def test_an_expired_file_is_invisible_at_once_and_deleted_by_the_next_sweep(scene: Any) -> None:
    file = scene.upload(b"content", expiry_s=3600.0)
    kept = scene.upload(b"content")
    scene.clock.now_s += 3600
    assert listed(scene) == [kept.file_id]
    with pytest.raises(NotFoundError):
        scene.files.find(file.file_id, caller="alice")
    assert list(scene.files.chunks(file.file_id)) == [b"content"]
    scene.files.sweep()
    assert list(scene.files.chunks(file.file_id)) == []


def test_abandoned_uploads_are_swept(scene: Any) -> None:
    file_id = scene.files.begin(caller="alice")
    scene.files.sweep()
    scene.files.append(file_id, caller="alice", content=b"content")
    scene.clock.now_s += UPLOAD_S
    scene.files.sweep()
    with pytest.raises(StoreError, match="took too long"):
        scene.files.append(file_id, caller="alice", content=b"content")


def test_the_input_of_an_open_batch_is_neither_deleted_nor_swept(scene: Any) -> None:
    batch = scene.create()
    with pytest.raises(ConflictError, match=batch.batch_id):
        scene.files.delete(batch.input_file_id, caller="alice")
    scene.clock.now_s += scene.limits.expiry_s
    scene.files.sweep()
    scene.clock.now_s -= scene.limits.expiry_s
    assert scene.run(batch).num_completed == 3
    scene.files.delete(batch.input_file_id, caller="alice")


def test_deleting_a_file_while_it_is_read_is_an_error_for_the_reader(scene: Any) -> None:
    file = scene.upload(b"x" * 3000)
    chunks = scene.files.chunks(file.file_id)
    next(chunks)
    scene.files.delete(file.file_id, caller="alice")
    with pytest.raises(StoreError, match="was deleted while it was read"):
        next(chunks)
