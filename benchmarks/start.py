"""Seconds from the start of the server's process to the first token over HTTP, with and without compiled weights.

    python -m benchmarks.start

A client connects as soon as the port is bound and retries every few milliseconds while the model loads. The first
start of a series has an empty cache folder ("cold": it prepares and stores the weights), the others use its cache
("warm"). The files themselves are in the system's page cache in both cases.
"""

from __future__ import annotations

import argparse
import json
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.model_folder import prepare_model_folder
from benchmarks.report import RESULTS, Spread, describe_machine, print_header, print_table, write_json
from benchmarks.server_process import START_TIMEOUT_S, ServerProcess, add_server_python

from distilgpt2_api.core.config import Precision

RETRY_S = 0.005
MIB = 1 << 20


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder (default: random weights)")
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--repeats", type=int, default=5, help="warm starts; cold ones are 2")
    add_server_python(parser)
    args = parser.parse_args(arguments)
    folder = prepare_model_folder(args.model)
    machine = describe_machine()
    print_header("start", machine)
    starts: dict[str, list[tuple[float, float, int]]] = {"cold": [], "warm": []}
    for num_warm in (args.repeats, 0):
        with tempfile.TemporaryDirectory() as cache_home:
            for kind in ["cold", *["warm"] * num_warm]:
                starts[kind].append(measure(folder, args.precision, Path(cache_home), args.server_python))
    rows = [
        [
            kind,
            f"{Spread.of([bound_s for bound_s, _, _ in runs]):.2f}",
            f"{Spread.of([first_token_s for _, first_token_s, _ in runs]):.2f}",
            f"{max(rss_bytes for _, _, rss_bytes in runs) / MIB:.0f}",
        ]
        for kind, runs in starts.items()
    ]
    print(
        f"\n{args.precision}; seconds from the process's start: median (range) of {args.repeats} warm starts, 2 cold\n"
    )
    print_table(["start", "port bound", "first token", "RSS, MiB"], rows)
    write_json("start", machine, {"arguments": vars(args), "results": starts})


def measure(folder: Path, precision: str, cache_home: Path, python: Path | None = None) -> tuple[float, float, int]:
    """Seconds to the first connection and to the first token, and resident bytes afterwards."""
    log = RESULTS / "server.log"
    with ServerProcess(folder, precision=precision, cache_home=cache_home, log=log, python=python) as server:
        bound_s = None
        while (elapsed_s := time.perf_counter() - server.started_s) < START_TIMEOUT_S:
            server.check_running()
            try:
                with socket.create_connection(("127.0.0.1", server.port), timeout=START_TIMEOUT_S) as connection:
                    bound_s = bound_s or elapsed_s
                    if has_first_token(connection):
                        return bound_s, time.perf_counter() - server.started_s, server.rss_bytes()
            except ConnectionError:
                pass
            time.sleep(RETRY_S)
    raise SystemExit("no token after a minute")


def has_first_token(connection: socket.socket) -> bool:
    """Request a stream; False if the answer is an error, as it is while the model loads."""
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": 4, "ignore_eos": True, "stream": True}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    received = b""
    while piece := connection.recv(65536):
        received += piece
        if not b"HTTP/1.1 200".startswith(received[:12]) and not received.startswith(b"HTTP/1.1 200"):
            return False
        if b"data: {" in received:
            return True
    return False


if __name__ == "__main__":
    main()
