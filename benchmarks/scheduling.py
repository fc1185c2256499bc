"""How running streams and new requests affect each other: gaps beside prefills, cached prefixes, fairness.

    python -m benchmarks.scheduling
    python -m benchmarks.scheduling --streams 1 --setting MAX_STEP_TOKENS=64

Streams: N streams run, first alone, then while prompts of 500 tokens arrive at random, 2000 prompt tokens per second.
The rate is lower on a slow machine: at most 0.6 of the prefill rate without streams, which is measured first. Prefix:
the same 900 tokens twice with different ends; the ratio is TTFT of the first to the second. Fairness:
`benchmarks.reliability.fairness` with fewer requests.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import uvloop
from benchmarks.load_client import run_load
from benchmarks.model_folder import prepare_model_folder
from benchmarks.reliability import fairness
from benchmarks.reliability.http_exchange import ask_once, build_completion
from benchmarks.reliability.trial import Figure, build_parser, conclude, start_server
from benchmarks.report import Spread, percentile
from benchmarks.workload import Measurements, Workload

VOCAB_SIZE = 50256
MAX_ITL_RATIO = 3.0
MIN_PREFIX_GAIN = 10.0
ROOF_SHARE = 0.6
"""Highest share of the prefill rate alone: with more, the streams would measure an overload."""
NUM_PREFILL_CLIENTS = 32
ROOF_REQUESTS = 24
CHUNK_S = 1.0
"""Arrivals are generated for this time, again and again until the streams have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsRun:
    """The streams' gaps, and the prompt tokens per second that arrived beside them."""

    prefill_rate: float
    itl_p50_s: float
    itl_p99_s: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--stream-tokens", type=int, default=400, help="tokens of each stream; at least 128 for a p99")
    parser.add_argument("--prefill-tokens", type=int, default=500, help="tokens of each arriving prompt")
    parser.add_argument("--prefill-rate", type=float, default=2000.0, help="prompt tokens/s, if the machine can do it")
    parser.add_argument("--prefix-tokens", type=int, default=900)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--queued", type=int, default=300, help="requests of the busy client, for fairness")
    args = parser.parse_args(arguments)
    args.vocab = VOCAB_SIZE if args.model is None else 256
    with start_server(args, prepare_model_folder(args.model), {}) as server:
        server.wait_ready()
        figures = uvloop.run(measure(server.port, args))
    fair_args = argparse.Namespace(
        model=None,
        precision=args.precision,
        setting=args.setting,
        seed=args.seed,
        queued=args.queued,
        requests=10,
        keys=False,
    )
    conclude("scheduling", args, [*figures, *fairness.run(fair_args)], kind="")


async def measure(port: int, args: argparse.Namespace) -> list[Figure]:
    await measure_roof(port, args, 1)  # the kernels prepare for each number of rows
    roof = await measure_roof(port, args, 2)
    rate = min(args.prefill_rate, ROOF_SHARE * roof)
    await run_streams(port, args, args.repeats, rate)  # blocks of the KV cache are slow to write for the first time
    quiet, beside = [], []
    for repeat in range(args.repeats):
        quiet.append(await run_streams(port, args, repeat, 0.0))
        beside.append(await run_streams(port, args, repeat, rate))
    prefixes = [await measure_prefix(port, args, repeat) for repeat in range(args.repeats + 1)][1:]
    return [*describe_streams(roof, rate, quiet, beside), *describe_prefixes(args, prefixes)]


async def measure_roof(port: int, args: argparse.Namespace, seed: int) -> float:
    """Prompt tokens per second without other load: one new token per request."""
    seen = await run_load(port, replace(build_prefills(args, seed), num_clients=4, num_requests=ROOF_REQUESTS))
    num_tokens: int = ROOF_REQUESTS * args.prefill_tokens
    return num_tokens / seen.elapsed_s


async def run_streams(port: int, args: argparse.Namespace, seed: int, rate: float) -> StreamsRun:
    """`rate`: prompt tokens per second beside the streams."""
    workload = Workload(
        num_clients=args.streams,
        num_requests=args.streams,
        num_new_tokens=args.stream_tokens,
        vocab_size=args.vocab,
        seed=seed,
    )
    prefills = build_prefills(args, seed)
    streams = asyncio.create_task(run_load(port, workload))
    chunks: list[asyncio.Task[Measurements]] = []
    requests_per_s, begin_s = rate / args.prefill_tokens, time.perf_counter()
    while rate and not streams.done():
        seed += 1000  # new prompts every time: the prefix cache would have old ones
        num_requests = max(1, round(requests_per_s * CHUNK_S))
        chunk = replace(prefills, rate=requests_per_s, num_requests=num_requests, seed=seed)
        chunks.append(asyncio.create_task(run_load(port, chunk)))
        await asyncio.wait({streams}, timeout=num_requests / requests_per_s)
    num_prefills = sum(seen.num_requests for seen in await asyncio.gather(*chunks))
    elapsed_s = time.perf_counter() - begin_s
    itls_s = (await streams).itls_s
    return StreamsRun(
        prefill_rate=num_prefills * args.prefill_tokens / elapsed_s,
        itl_p50_s=percentile(itls_s, 50),
        itl_p99_s=percentile(itls_s, 99),
    )


def build_prefills(args: argparse.Namespace, seed: int) -> Workload:
    return Workload(
        num_clients=NUM_PREFILL_CLIENTS,
        num_requests=1,
        min_prompt_tokens=args.prefill_tokens,
        max_prompt_tokens=args.prefill_tokens,
        num_new_tokens=1,
        vocab_size=args.vocab,
        seed=500 + seed,
    )


async def measure_prefix(port: int, args: argparse.Namespace, seed: int) -> tuple[float, float]:
    """TTFT in seconds, cold and cached."""
    rng = random.Random(args.seed + seed)
    prefix = [rng.randrange(args.vocab) for _ in range(args.prefix_tokens)]
    ttfts_s = []
    for _ in range(2):
        tail = [rng.randrange(args.vocab) for _ in range(8)]
        answer = await ask_once(port, build_completion(prefix + tail, max_tokens=2, stream=True))
        if not answer.chunks_s:
            raise RuntimeError(f"no first token: {answer.ending}")
        ttfts_s.append(answer.ttft_s)
    cold_s, cached_s = ttfts_s
    return cold_s, cached_s


def describe_streams(
    roof: float, rate: float, quiet: Sequence[StreamsRun], beside: Sequence[StreamsRun]
) -> list[Figure]:
    ratios = Spread.of([run.itl_p99_s / run.itl_p50_s for run in beside])
    return [
        Figure("prefill alone, prompt tokens/s", f"{roof:.0f}"),
        Figure("offered beside the streams", f"{rate:.0f}"),
        Figure("reached", f"{Spread.of([run.prefill_rate for run in beside]):.0f}"),
        Figure("streams alone: ITL p50, ms", f"{Spread.of([1000 * run.itl_p50_s for run in quiet]):.1f}"),
        Figure("streams alone: ITL p99, ms", f"{Spread.of([1000 * run.itl_p99_s for run in quiet]):.1f}"),
        Figure("beside prefills: ITL p50, ms", f"{Spread.of([1000 * run.itl_p50_s for run in beside]):.1f}"),
        Figure("beside prefills: ITL p99, ms", f"{Spread.of([1000 * run.itl_p99_s for run in beside]):.1f}"),
        Figure("p99 / p50", f"{ratios:.1f}", f"< {MAX_ITL_RATIO:g}", ratios.median < MAX_ITL_RATIO),
    ]


def describe_prefixes(args: argparse.Namespace, pairs_s: Sequence[tuple[float, float]]) -> list[Figure]:
    gains = Spread.of([cold_s / cached_s for cold_s, cached_s in pairs_s])
    return [
        Figure(
            f"{args.prefix_tokens}-token prefix: TTFT cold, ms",
            f"{Spread.of([1000 * cold for cold, _ in pairs_s]):.1f}",
        ),
        Figure("the same, cached", f"{Spread.of([1000 * cached for _, cached in pairs_s]):.1f}"),
        Figure("cold / cached", f"{gains:.1f}", f">= {MIN_PREFIX_GAIN:g}", gains.median >= MIN_PREFIX_GAIN),
    ]


if __name__ == "__main__":
    main()
