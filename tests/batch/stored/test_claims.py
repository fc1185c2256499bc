"""Leases: one works on a batch at a time, and no line has two results."""

from __future__ import annotations

from typing import Any

import pytest

from distilgpt2_api.batch.stored.claims import LEASE_S, LeaseLostError
from distilgpt2_api.batch.stored.objects import BatchStatus, LineResult, StoreLimits
from distilgpt2_api.core.errors import ConflictError, InvalidRequestError, NotFoundError, QuotaError


def result(number: int, *, is_success: bool = True) -> LineResult:
    return LineResult(number=number, content=b'{"number":%d}\n' % number, is_success=is_success)


def test_a_batch_is_one_owners_until_its_lease_runs_out(scene: Any) -> None:
    batch = scene.create()
    first, second = scene.claims("first"), scene.claims("second")
    assert first.claim().batch_id == batch.batch_id
    assert second.claim() is None
    scene.clock.now_s += LEASE_S / 2
    first.renew(batch.batch_id)
    scene.clock.now_s += LEASE_S / 2
    assert second.claim() is None
    scene.clock.now_s += LEASE_S / 2
    assert second.claim().batch_id == batch.batch_id
    assert first.claim() is None


def test_who_has_lost_the_lease_writes_nothing(scene: Any) -> None:
    batch = scene.create()
    first, second = scene.claims("first"), scene.claims("second")
    first.claim()
    first.begin(batch.batch_id, num_lines=3)
    first.record(batch.batch_id, [result(1)])
    scene.clock.now_s += LEASE_S
    second.claim()
    with pytest.raises(LeaseLostError):
        first.record(batch.batch_id, [result(2)])
    for write in (first.renew, first.finalize, first.finish):
        with pytest.raises(LeaseLostError):
            write(batch.batch_id)
    first.give_back(batch.batch_id)
    assert second.renew(batch.batch_id).status is BatchStatus.IN_PROGRESS
    assert second.recorded_numbers(batch.batch_id) == {1}


def test_what_is_given_back_is_free_at_once(scene: Any) -> None:
    batch = scene.create()
    scene.claims("first").claim()
    scene.claims("first").give_back(batch.batch_id)
    assert scene.claims("second").claim().batch_id == batch.batch_id


def test_the_oldest_is_claimed_first_but_another_callers_before_it(scene: Any) -> None:
    created = []
    for caller in ("alice", "alice", "bob"):
        created.append(scene.create(caller=caller))
        scene.clock.now_s += 1
    claims = scene.claims()
    assert claims.claim().batch_id == created[0].batch_id
    assert claims.claim(callers=["alice"]).batch_id == created[2].batch_id
    assert claims.claim(callers=["alice", "bob"]).batch_id == created[1].batch_id
    assert claims.claim() is None


def test_results_become_files_in_the_order_of_the_input(scene: Any) -> None:
    batch = scene.create(output_expiry_s=3600.0)
    claims = scene.claims()
    claims.claim()
    claims.begin(batch.batch_id, num_lines=4)
    claims.record(batch.batch_id, [result(4), result(2, is_success=False)])
    claims.record(batch.batch_id, [result(1), result(3)])
    claims.finalize(batch.batch_id)
    ended = claims.finish(batch.batch_id)
    assert (ended.status, ended.num_completed, ended.num_failed) == (BatchStatus.COMPLETED, 3, 1)
    assert [line["number"] for line in scene.read(ended.output_file_id)] == [1, 3, 4]
    assert [line["number"] for line in scene.read(ended.error_file_id)] == [2]
    output = scene.files.find(ended.output_file_id, caller="alice")
    assert output.filename == f"{batch.batch_id}_output.jsonl"
    assert output.expires_s == scene.clock.now_s + 3600
    assert claims.recorded_numbers(batch.batch_id) == set()
    with pytest.raises(LeaseLostError):
        claims.renew(batch.batch_id)


def test_cancelled_meanwhile_it_does_not_begin(scene: Any) -> None:
    batch = scene.create()
    claims = scene.claims()
    claims.claim()
    scene.batches.cancel(batch.batch_id, caller="alice")
    assert claims.begin(batch.batch_id, num_lines=3).status is BatchStatus.CANCELLING
    assert claims.finish(batch.batch_id).status is BatchStatus.CANCELLED
    with pytest.raises(ConflictError, match="a batch that is cancelled can't be cancelled"):
        scene.batches.cancel(batch.batch_id, caller="alice")


def test_batches_are_their_callers_and_bounded(build_scene: Any) -> None:
    scene = build_scene(limits=StoreLimits(max_files=9, max_bytes=3000, max_open_batches=1, expiry_s=100.0))
    batch = scene.create()
    with pytest.raises(NotFoundError):
        scene.batches.find(batch.batch_id, caller="bob")
    with pytest.raises(NotFoundError):
        scene.batches.cancel(batch.batch_id, caller="bob")
    with pytest.raises(NotFoundError):
        scene.create(caller="bob", input_file_id=batch.input_file_id)
    with pytest.raises(QuotaError, match="you have 1 batches that have not ended, and may have 1"):
        scene.create()
    assert scene.batches.list(caller="bob", after=None, limit=9).items == []


def test_a_batch_reads_no_output(scene: Any) -> None:
    batch = scene.run(scene.create())
    with pytest.raises(InvalidRequestError, match="has the purpose batch_output"):
        scene.create(input_file_id=batch.output_file_id)


def test_batches_that_ended_long_ago_are_forgotten(scene: Any) -> None:
    ended = scene.create()
    scene.clock.now_s += 1
    other = scene.create()
    scene.claims().claim()
    scene.claims().fail(ended.batch_id, [])
    scene.clock.now_s += scene.limits.expiry_s - 1
    scene.batches.sweep()
    assert scene.find(ended).status is BatchStatus.FAILED
    scene.clock.now_s += 1
    scene.batches.sweep()
    with pytest.raises(NotFoundError):
        scene.find(ended)
    assert scene.find(other).status is BatchStatus.VALIDATING
