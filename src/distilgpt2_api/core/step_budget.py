"""The number of prompt tokens that a step computes beside decoding sequences. It bounds their inter-token latency.

A step takes as long as its decodes and its prompt tokens together. The more sequences decode, the longer a step takes
anyway, and the more prompt tokens fit before the latency becomes several times as long as without them. The more
requests wait for their first token, the more prompt tokens are worth it. Without that term, prompts would arrive faster
than they are prefilled well below capacity (`benchmarks/simulated_node.py` shows it), and requests would queue
indefinitely.

The three numbers are measured: beside 2000 prompt tokens a second, inter-token latencies stay below three times the
median (`benchmarks/scheduling.py`), without loss of throughput.
"""

TOKENS_BESIDE_STREAMS = 16
TOKENS_PER_STREAM = 3
TOKENS_PER_WAITING = 8


def prompt_budget(num_left: int, num_streams: int, num_waiting: int) -> int:
    """The prompt tokens of a step that has `num_left` tokens left beside those of `num_streams` decoding sequences.

    `num_waiting` sequences wait for their first token. Without decoding sequences, prompts get all tokens.
    """
    if not num_streams:
        return num_left
    return min(num_left, TOKENS_BESIDE_STREAMS + TOKENS_PER_STREAM * num_streams + TOKENS_PER_WAITING * num_waiting)
