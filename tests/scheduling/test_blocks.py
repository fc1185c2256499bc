from __future__ import annotations

import pytest

from distilgpt2_api.scheduling.blocks import BlockPool, num_blocks_for


def test_tokens_round_up_to_blocks() -> None:
    assert [num_blocks_for(n) for n in (0, 1, 32, 33, 64, 65)] == [0, 1, 1, 2, 2, 3]


def test_every_block_is_allocated_once() -> None:
    pool = BlockPool(3)
    assert sorted(pool.allocate() for _ in range(3)) == [0, 1, 2]
    assert pool.num_free == 0


def test_a_cached_block_is_found_while_held_and_after_its_release() -> None:
    pool = BlockPool(2)
    block_id = pool.allocate()
    pool.keep(block_id, b"name")
    assert pool.find(b"name") == block_id
    pool.release([block_id])
    assert pool.find(b"name") == block_id
    assert pool.num_free == 2


def test_a_shared_block_is_free_when_no_sequence_holds_it() -> None:
    pool = BlockPool(1)
    block_id = pool.allocate()
    pool.keep(block_id, b"name")
    pool.share([block_id])
    pool.release([block_id])
    assert not pool.is_free(block_id)
    pool.release([block_id])
    assert pool.is_free(block_id)


def test_blank_blocks_are_allocated_before_cached_ones() -> None:
    """No cached block is evicted while a blank one is free."""
    pool = BlockPool(2)
    kept = pool.allocate()
    pool.keep(kept, b"name")
    pool.release([kept])
    assert pool.allocate() != kept
    assert pool.find(b"name") == kept


def test_after_the_eager_blocks_a_cached_one_is_evicted_before_an_unused_one_is_taken() -> None:
    """Cached blocks of finished sequences use up to four blocks of memory; blocks that a sequence holds, all six."""
    pool = BlockPool(6, num_eager_blocks=4)
    for index in range(10):
        block_id = pool.allocate()
        pool.keep(block_id, bytes([index]))
        pool.release([block_id])
    assert pool.num_used == 4
    assert all(pool.find(bytes([index])) is not None for index in (6, 7, 8, 9))

    held = [pool.allocate() for _ in range(6)]

    assert sorted(held) == [0, 1, 2, 3, 4, 5]
    assert pool.num_free == 0


def test_the_least_recently_used_block_is_evicted_first() -> None:
    pool = BlockPool(3)
    blocks = [pool.allocate() for _ in range(3)]
    for block_id, name in zip(blocks, (b"a", b"b", b"c"), strict=True):
        pool.keep(block_id, name)
        pool.release([block_id])
    pool.share([blocks[0]])
    pool.release([blocks[0]])
    assert [pool.allocate() for _ in range(3)] == [blocks[1], blocks[2], blocks[0]]
    assert [pool.find(name) for name in (b"a", b"b", b"c")] == [None, None, None]


def test_a_sequences_last_blocks_are_evicted_first() -> None:
    """A prefix can serve more prompts than the blocks after it, which are useless without it."""
    pool = BlockPool(2)
    first, second = pool.allocate(), pool.allocate()
    pool.keep(first, b"first")
    pool.keep(second, b"second")
    pool.release([first, second])
    assert pool.allocate() == second
    assert pool.find(b"first") == first


def test_the_first_of_two_blocks_with_the_same_content_stays_cached() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(), pool.allocate()
    pool.keep(first, b"name")
    pool.keep(second, b"name")
    assert pool.find(b"name") == first
    pool.release([second])
    pool.release([first])
    pool.check([])
    assert pool.find(b"name") == first


@pytest.mark.parametrize("tables", [[], [[0]], [[0, 1]], [[0], [0]]])
def test_the_check_passes_for_the_true_block_tables(tables: list[list[int]]) -> None:
    pool = BlockPool(3)
    for table in tables:
        for block_id in table:
            if pool.is_free(block_id):
                assert pool.allocate() == block_id
                pool.keep(block_id, bytes([block_id]))
            else:
                pool.share([block_id])
    pool.check(tables)


def test_the_check_finds_a_leak_and_a_double_release() -> None:
    pool = BlockPool(2)
    block_id = pool.allocate()
    with pytest.raises(AssertionError, match="wrong number of holders"):
        pool.check([])
    pool.release([block_id])
    pool.release([block_id])
    with pytest.raises(AssertionError):
        pool.check([])
