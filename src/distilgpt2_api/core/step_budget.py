"""How many tokens of prompts a step computes beside streams: what their gaps are bounded by.

A step lasts as long as the decodes of its streams and the prompts' tokens in it. The more streams there are, the longer
their decodes take anyway, and the more tokens may come along before the gap is several times as long as without any;
the more requests wait for their first token, the more it is worth. Were the bound without that, prompts would come in
faster than they leave long before the machine is full (`benchmarks/simulated_node.py` shows it), and streams be even
while requests wait for ever.

The three numbers are measured: gaps beside 2000 tokens of prompts a second stay below three times the median
(`benchmarks/scheduling.py`) without a loss of throughput.
"""

TOKENS_BESIDE_STREAMS = 16
TOKENS_PER_STREAM = 3
TOKENS_PER_WAITING = 8


def prompt_budget(num_left: int, num_streams: int, num_waiting: int) -> int:
    """Of the `num_left` tokens that a step has beside a token of `num_streams` sequences each, how many prompts get.

    `num_waiting` sequences have had no token yet. Where nothing streams, nobody has gaps: all.
    """
    if not num_streams:
        return num_left
    return min(num_left, TOKENS_BESIDE_STREAMS + TOKENS_PER_STREAM * num_streams + TOKENS_PER_WAITING * num_waiting)
