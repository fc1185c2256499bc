"""TTFT and ITL of interactive streams, alternating with and without a batch beside them.

    python -m benchmarks.batch_latency                    DistilGPT-2's shape, int8, two clients
    python -m benchmarks.batch_latency --clients 8 --step-tokens 0 2 8

There is a server for each value of `batch_step_tokens`. Every round measures the same streams alone, and then beside a
batch of `/v1/batches` that would fill the engine by itself. Ratios compare neighbouring measurements; on a shared
machine, read the ratios, not the milliseconds. The batch's rate is shown as a share of its rate alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.model_folder import COMPILED, prepare_model_folder
from benchmarks.report import Spread, describe_machine, percentile, print_header, print_table, write_json
from benchmarks.server_process import ServerProcess
from benchmarks.workload import Workload, run_client
from prometheus_client.parser import text_string_to_metric_families

NUM_LINES = 5000
"""More lines than the batch can answer before it is cancelled."""
LINE_TOKENS = 100
RATE_S = 4.0
"""Time for which the batch runs alone, to measure its rate."""
DEADLINE_S = 60.0
PATIENCE_S = 0.05


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds; tokens of the batch per second."""

    ttft_p50_s: float
    ttft_p95_s: float
    itl_p50_s: float
    itl_p95_s: float
    batch_rate: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model's folder")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--requests", type=int, default=8, help="requests of each client in a round")
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=4, help="rounds")
    parser.add_argument("--step-tokens", type=int, nargs="+", default=[2], help="batch_step_tokens, one server each")
    args = parser.parse_args()
    machine = describe_machine()
    print_header("latencies beside a batch", machine)
    rows, results = [], {}
    for step_tokens in args.step_tokens:
        alone, beside, full_rate = measure_server(args, step_tokens)
        results[str(step_tokens)] = {"alone": alone, "beside": beside, "full_batch_rate": full_rate}
        rows.append(describe(step_tokens, alone, beside, full_rate))
    header = [
        "step tokens",
        "TTFT p50 ms",
        "beside",
        "ratio",
        "p95 ratio",
        "ITL p50 ms",
        "beside",
        "ratio",
        "p95 ratio",
    ]
    print_table([*header, "batch %"], rows)
    write_json("batch-latency", machine, results)


def describe(step_tokens: int, alone: Sequence[Round], beside: Sequence[Round], full_rate: float) -> list[object]:
    def pair(name: str) -> list[str]:
        value: Callable[[Round], float] = lambda one: float(getattr(one, name))  # noqa: E731 - this form has a type annotation
        ratio = Spread.of([value(two) / value(one) for one, two in zip(alone, beside, strict=True)])
        both = [f"{1000 * Spread.of([value(one) for one in rounds]).median:.1f}" for rounds in (alone, beside)]
        return [*both, f"{ratio:.2f}"]

    share = Spread.of([100 * one.batch_rate / full_rate for one in beside])
    ttft, itl = pair("ttft_p50_s"), pair("itl_p50_s")
    return [step_tokens, *ttft, pair("ttft_p95_s")[2], *itl, pair("itl_p95_s")[2], f"{share:.0f}"]


def measure_server(args: argparse.Namespace, step_tokens: int) -> tuple[list[Round], list[Round], float]:
    """Rounds alone, rounds beside a batch, and the batch's tokens per second without other requests."""
    with tempfile.TemporaryDirectory() as store:
        settings = {"BATCH_STORE": store, "BATCH_STEP_TOKENS": str(step_tokens)}
        folder = prepare_model_folder(args.model)
        with ServerProcess(folder, precision=args.precision, cache_home=COMPILED, settings=settings) as server:
            server.wait_ready()
            measure(server, args)  # the kernels prepare for each number of rows
            alone, beside, full_rates = [], [], []
            for _ in range(args.repeats):
                alone.append(measure(server, args))
                batch_id = start_batch(server)
                full_rates.append(batch_rate(server))
                beside.append(measure(server, args))
                end_batch(server, batch_id)
            return alone, beside, Spread.of(full_rates).median


def measure(server: ServerProcess, args: argparse.Namespace) -> Round:
    workload = Workload.closed_loop(
        args.clients, num_each=args.requests, num_prompt_tokens=args.prompt_tokens, num_new_tokens=args.new_tokens
    )
    begin = read_metrics(server), time.perf_counter()
    seen = run_client(server.port, workload)
    end = read_metrics(server), time.perf_counter()
    # The counter includes the streams' tokens, whose number is known.
    own = args.clients * args.requests * (args.prompt_tokens + args.new_tokens - 1)
    name = "distilgpt2_computed_tokens_total"
    return Round(
        ttft_p50_s=percentile(seen.ttfts_s, 50),
        ttft_p95_s=percentile(seen.ttfts_s, 95),
        itl_p50_s=percentile(seen.itls_s, 50),
        itl_p95_s=percentile(seen.itls_s, 95),
        batch_rate=max(0.0, end[0][name] - begin[0][name] - own) / (end[1] - begin[1]),
    )


def batch_rate(server: ServerProcess) -> float:
    """Tokens per second of the batch alone."""
    name = "distilgpt2_computed_tokens_total"
    begin, begin_s = read_metrics(server)[name], time.perf_counter()
    time.sleep(RATE_S)
    return (read_metrics(server)[name] - begin) / (time.perf_counter() - begin_s)


def start_batch(server: ServerProcess) -> str:
    """Start a batch; return its id once it fills the engine."""
    lines = b"".join(
        json.dumps(
            {
                "custom_id": f"{number}",
                "method": "POST",
                "url": "/v1/completions",
                "body": {"prompt": f"Line {number} of many.", "max_tokens": LINE_TOKENS, "ignore_eos": True},
            }
        ).encode()
        + b"\n"
        for number in range(NUM_LINES)
    )
    joint = "between-two-parts"
    form = (
        f'--{joint}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{joint}\r\nContent-Disposition: form-data; name="file"; filename="input.jsonl"\r\n\r\n'
    )
    body = form.encode() + lines + f"\r\n--{joint}--\r\n".encode()
    file_id = ask(server, "/v1/files", body, f"multipart/form-data; boundary={joint}")["id"]
    wanted = {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "24h"}
    batch_id: str = ask(server, "/v1/batches", json.dumps(wanted).encode())["id"]
    wait_until(lambda: read_metrics(server)["distilgpt2_batch_sequences"] > 1, "the batch runs")
    return batch_id


def end_batch(server: ServerProcess, batch_id: str) -> None:
    ask(server, f"/v1/batches/{batch_id}/cancel", b"")
    wait_until(lambda: ask(server, f"/v1/batches/{batch_id}")["status"] == "cancelled", "the batch ends")


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    end_s = time.perf_counter() + DEADLINE_S
    while not is_so():
        if time.perf_counter() > end_s:
            raise SystemExit(f"not within {DEADLINE_S:g} s: {what}")
        time.sleep(PATIENCE_S)


def ask(server: ServerProcess, path: str, body: bytes | None = None, media_type: str = "application/json") -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", body, {"content-type": media_type})
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        return json.load(answer)


def read_metrics(server: ServerProcess) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=DEADLINE_S) as answer:
        page = answer.read().decode()
    return {sample.name: sample.value for family in text_string_to_metric_families(page) for sample in family.samples}


if __name__ == "__main__":
    main()
