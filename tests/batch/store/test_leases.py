"""Leases: one worker at a time changes a batch, and no line has two results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilgpt2_api.batch.store.leases import LEASE_S, LeaseLostError
from distilgpt2_api.batch.store.objects import BatchStatus, InputError, LineResult, StoredBatch, StoreLimits
from distilgpt2_api.core.errors import ConflictError, InvalidRequestError, NotFoundError, QuotaError, StoreError


def result(number: int, *, is_success: bool = True) -> LineResult:
    return LineResult(number=number, content=b'{"number":%d}\n' % number, is_success=is_success)


def test_a_batch_belongs_to_one_worker_until_its_lease_expires(scene: Any) -> None:
    batch, leases = scene.create(), scene.leases()
    first = leases.claim()
    assert first.batch_id == batch.batch_id
    assert leases.claim() is None
    scene.clock.now_s += LEASE_S / 2
    leases.renew(first)
    scene.clock.now_s += LEASE_S / 2
    assert leases.claim() is None
    scene.clock.now_s += LEASE_S / 2
    assert leases.claim().batch_id == batch.batch_id
    assert leases.claim() is None


@pytest.mark.reported("after a lost commit the lease passed to a second run of the same process")
def test_nothing_is_written_under_a_lost_lease(scene: Any) -> None:
    """The next owner may be a second run of the same process, under a new lease."""
    scene.create()
    leases = scene.leases()
    first = leases.begin(leases.claim(), num_lines=3)
    leases.record(first, [result(1)])
    scene.clock.now_s += LEASE_S
    second = leases.claim()
    with pytest.raises(LeaseLostError):
        leases.record(first, [result(2)])
    for write in (leases.renew, leases.finalize, leases.finish):
        with pytest.raises(LeaseLostError):
            write(first)
    leases.give_back(first)
    assert leases.renew(second).status is BatchStatus.IN_PROGRESS
    assert leases.recorded_numbers(second.batch_id) == {1}


@pytest.mark.reported("after a lost commit the lease passed to a second run of the same process")
def test_a_process_does_not_claim_a_batch_that_it_works_on(scene: Any) -> None:
    """Its lease may have expired while the store was down. It continues unless another process claims the batch."""
    scene.create()
    leases = scene.leases()
    held = leases.claim()
    scene.clock.now_s += 2 * LEASE_S
    assert leases.claim(held=[held.batch_id]) is None
    assert leases.renew(held).owner == held.owner
    assert leases.claim() is None


def test_a_batch_given_back_can_be_claimed_at_once(scene: Any) -> None:
    batch = scene.create()
    leases = scene.leases()
    leases.give_back(leases.claim())
    assert leases.claim().batch_id == batch.batch_id


@pytest.mark.reported("after an ambiguous COMMIT the batch store retried the same rows forever")
def test_a_step_whose_acknowledgment_is_lost_can_be_repeated(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step up to a batch's end is committed twice; nothing is stored or counted twice."""
    scene.create()
    leases = scene.leases()
    held = leases.claim()
    steps: list[Callable[[StoredBatch], Any]] = [
        leases.renew,
        lambda held: leases.begin(held, num_lines=3),
        lambda held: leases.record(held, [result(1), result(2, is_success=False)]),
        lambda held: leases.record(held, [result(2, is_success=False), result(3)]),
        leases.finalize,
        leases.finish,
    ]
    for step in steps:
        with monkeypatch.context() as patch:
            scene.lose_acknowledgments(patch)
            with pytest.raises(StoreError):
                step(held)
        held = step(held)
    assert (held.status, held.num_completed, held.num_failed) == (BatchStatus.COMPLETED, 2, 1)
    assert [line["number"] for line in scene.read(held.output_file_id)] == [1, 3]
    assert [line["number"] for line in scene.read(held.error_file_id)] == [2]


@pytest.mark.parametrize(("name", "status"), [("fail", BatchStatus.FAILED), ("give_back", BatchStatus.VALIDATING)])
def test_an_end_whose_acknowledgment_is_lost_can_be_repeated(
    scene: Any, monkeypatch: pytest.MonkeyPatch, name: str, status: BatchStatus
) -> None:
    batch = scene.create()
    leases = scene.leases()
    held = leases.claim()
    arguments = [[InputError(code="empty_file", message="no")]] if name == "fail" else []
    with monkeypatch.context() as patch:
        scene.lose_acknowledgments(patch)
        with pytest.raises(StoreError):
            getattr(leases, name)(held, *arguments)
    getattr(leases, name)(held, *arguments)
    assert scene.find(batch).status is status


def test_the_oldest_batch_is_claimed_first_but_other_callers_take_precedence(scene: Any) -> None:
    created = []
    for caller in ("alice", "alice", "bob"):
        created.append(scene.create(caller=caller))
        scene.clock.now_s += 1
    leases = scene.leases()
    assert leases.claim().batch_id == created[0].batch_id
    assert leases.claim(callers=["alice"]).batch_id == created[2].batch_id
    assert leases.claim(callers=["alice", "bob"]).batch_id == created[1].batch_id
    assert leases.claim() is None


def test_results_are_written_to_files_in_the_order_of_the_input(scene: Any) -> None:
    batch = scene.create(output_expiry_s=3600.0)
    leases = scene.leases()
    held = leases.begin(leases.claim(), num_lines=4)
    leases.record(held, [result(4), result(2, is_success=False)])
    leases.record(held, [result(1), result(3)])
    leases.finalize(held)
    ended = leases.finish(held)
    assert (ended.status, ended.num_completed, ended.num_failed) == (BatchStatus.COMPLETED, 3, 1)
    assert [line["number"] for line in scene.read(ended.output_file_id)] == [1, 3, 4]
    assert [line["number"] for line in scene.read(ended.error_file_id)] == [2]
    output = scene.files.find(ended.output_file_id, caller="alice")
    assert output.filename == f"{batch.batch_id}_output.jsonl"
    assert output.expires_s == scene.clock.now_s + 3600
    assert leases.recorded_numbers(batch.batch_id) == set()
    assert leases.claim() is None


def test_a_batch_cancelled_after_its_claim_does_not_start(scene: Any) -> None:
    batch = scene.create()
    leases = scene.leases()
    held = leases.claim()
    scene.batches.cancel(batch.batch_id, caller="alice")
    assert leases.begin(held, num_lines=3).status is BatchStatus.CANCELLING
    assert leases.finish(held).status is BatchStatus.CANCELLED
    with pytest.raises(ConflictError, match="the batch is cancelled and can't be cancelled"):
        scene.batches.cancel(batch.batch_id, caller="alice")


def test_batches_are_visible_only_to_their_caller_and_limited_in_number(build_scene: Any) -> None:
    scene = build_scene(limits=StoreLimits(max_files=9, max_bytes=3000, max_open_batches=1, expiry_s=100.0))
    batch = scene.create()
    with pytest.raises(NotFoundError):
        scene.batches.find(batch.batch_id, caller="bob")
    with pytest.raises(NotFoundError):
        scene.batches.cancel(batch.batch_id, caller="bob")
    with pytest.raises(NotFoundError):
        scene.create(caller="bob", input_file_id=batch.input_file_id)
    with pytest.raises(QuotaError, match="you have 1 batches that have not ended; the limit is 1"):
        scene.create()
    assert scene.batches.list(caller="bob", after=None, limit=9).items == []


def test_an_output_file_is_refused_as_an_input(scene: Any) -> None:
    batch = scene.run(scene.create())
    with pytest.raises(InvalidRequestError, match="has the purpose batch_output"):
        scene.create(input_file_id=batch.output_file_id)


def test_batches_that_ended_long_ago_are_deleted(scene: Any) -> None:
    ended = scene.create()
    scene.clock.now_s += 1
    other = scene.create()
    scene.leases().fail(scene.leases().claim(), [])
    scene.clock.now_s += scene.limits.expiry_s - 1
    scene.batches.sweep()
    assert scene.find(ended).status is BatchStatus.FAILED
    scene.clock.now_s += 1
    scene.batches.sweep()
    with pytest.raises(NotFoundError):
        scene.find(ended)
    assert scene.find(other).status is BatchStatus.VALIDATING
