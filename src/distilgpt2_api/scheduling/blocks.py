"""The KV cache's block pool: which blocks are held, free or cached."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from struct import Struct

from distilgpt2_api.core.config import BLOCK_SIZE

_pack_block = Struct(f"<{BLOCK_SIZE}I").pack


def num_blocks_for(num_tokens: int) -> int:
    return -(-num_tokens // BLOCK_SIZE)


def block_digest(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """256-bit digest of a full block: of its `BLOCK_SIZE` tokens and, through `parent`, of all tokens before them.

    `parent` is the digest of the block before, b"" for a sequence's first block. The hash is cryptographic: otherwise
    an attacker could make a prompt that collides with another caller's and read from that caller's keys and values.
    """
    return blake2b(parent + _pack_block(*token_ids), digest_size=32).digest()


class BlockPool:
    """Owns every block's state. A block is always exactly one of:

    - held by one or more sequences (reference-counted), cached or not;
    - free and cached: no sequence holds it, but its content is known by digest and can be shared again;
    - free and blank, used before or never.

    `allocate()` takes blank blocks first, then evicts the cached block that was released first. A block that was never
    used takes no memory yet. After the first `num_eager_blocks`, free cached blocks are evicted before unused ones are
    taken, so that memory grows with what sequences hold at once, not with what finished ones leave behind. Every
    operation is O(1) per block. A cached block is full and computed, and is never written again: a sequence writes only
    to blocks from `allocate()`, which no other sequence can find before `keep()`.
    """

    def __init__(self, num_blocks: int, *, num_eager_blocks: int | None = None) -> None:
        self.num_blocks = num_blocks
        self._num_eager_blocks = num_blocks if num_eager_blocks is None else min(num_blocks, num_eager_blocks)
        self._num_holders = [0] * num_blocks
        self.num_used = 0
        """Number of blocks used so far: blocks 0 to `num_used - 1`."""
        self._blank: list[int] = []
        """Free, blank and used before."""
        self._evictable: OrderedDict[int, None] = OrderedDict()
        """Free and cached, least recently released first."""
        self._block_of_digest: dict[bytes, int] = {}
        self._digest_of_block: dict[int, bytes] = {}

    @property
    def num_free(self) -> int:
        return len(self._blank) + len(self._evictable) + self.num_blocks - self.num_used

    def allocate(self) -> int:
        """Take a free block to write to, and forget its old content. There must be one."""
        if self._blank:
            block_id = self._blank.pop()
        elif self.num_used < (self._num_eager_blocks if self._evictable else self.num_blocks):
            block_id = self.num_used
            self.num_used += 1
        else:
            block_id, _ = self._evictable.popitem(last=False)
            del self._block_of_digest[self._digest_of_block.pop(block_id)]
        self._num_holders[block_id] = 1
        return block_id

    def find(self, digest: bytes) -> int | None:
        """The cached block with this content. Call `share()` before the next `allocate()`, which could evict it."""
        return self._block_of_digest.get(digest)

    def is_free(self, block_id: int) -> bool:
        return not self._num_holders[block_id]

    def count_own(self, block_ids: Iterable[int]) -> int:
        """Count the blocks of a sequence that no other sequence holds: those that its release would free."""
        return sum(self._num_holders[block_id] == 1 for block_id in block_ids)

    def share(self, block_ids: Iterable[int]) -> None:
        """Hold cached blocks for reading."""
        for block_id in block_ids:
            if not self._num_holders[block_id]:
                del self._evictable[block_id]
            self._num_holders[block_id] += 1

    def keep(self, block_id: int, digest: bytes) -> None:
        """Cache a held block that is full and computed.

        If two sequences computed the same content at the same time, the first one's block is cached.
        """
        if digest not in self._block_of_digest:
            self._block_of_digest[digest] = block_id
            self._digest_of_block[block_id] = digest

    def release(self, block_ids: Sequence[int]) -> None:
        """Release a sequence's block table. Its last blocks are evicted before its first, which more prompts share."""
        for block_id in reversed(block_ids):
            self._num_holders[block_id] -= 1
            if not self._num_holders[block_id]:
                if block_id in self._digest_of_block:
                    self._evictable[block_id] = None
                else:
                    self._blank.append(block_id)

    def check(self, block_tables: Iterable[Sequence[int]]) -> None:
        """Raise AssertionError unless the pool's state agrees with these block tables, block by block."""
        num_holders = Counter(block_id for block_ids in block_tables for block_id in block_ids)
        free = [*self._blank, *self._evictable, *range(self.num_used, self.num_blocks)]
        is_cached = self._digest_of_block.__contains__
        faults = {
            "wrong number of holders": [b for b in range(self.num_blocks) if self._num_holders[b] != num_holders[b]],
            "free twice": [b for b, count in Counter(free).items() if count > 1],
            "neither free nor held, or both": sorted(
                set(free) ^ {b for b in range(self.num_blocks) if self.is_free(b)}
            ),
            "blank, but cached": [b for b in self._blank if is_cached(b)],
            "evictable, but not cached": [b for b in self._evictable if not is_cached(b)],
            "cached under another digest": [
                b for d, b in self._block_of_digest.items() if self._digest_of_block.get(b) != d
            ],
        }
        if len(self._block_of_digest) != len(self._digest_of_block):
            faults["digests without a block"] = [len(self._digest_of_block) - len(self._block_of_digest)]
        if found := {fault: blocks for fault, blocks in faults.items() if blocks}:
            raise AssertionError(f"block accounting is wrong: {found}")
