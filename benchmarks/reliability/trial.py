"""Shared parts of the reliability programs: options, the server, its metrics, and the verdict."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.model_folder import COMPILED
from benchmarks.reliability.http_exchange import ask_once, build_get
from benchmarks.report import RESULTS, describe_machine, print_header, print_table, write_json
from benchmarks.server_process import ServerProcess
from prometheus_client.parser import text_string_to_metric_families

from distilgpt2_api.core.config import Precision
from distilgpt2_api.model.hub.store import BUNDLED_FOLDER
from distilgpt2_api.settings import Settings

STORYTELLER = BUNDLED_FOLDER
"""A trained model that is small enough to be fast."""
MIB = 1 << 20
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value. `is_kept` None: for information, without a bound."""

    name: str
    value: str
    bound: str = ""
    is_kept: bool | None = None


def build_parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder")
    parser.add_argument("--precision", type=Precision, default=Precision.INT8, choices=list(Precision))
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices")
    parser.add_argument(
        "--setting", metavar="NAME=VALUE", action="append", default=[], help="a setting of the server, as in DRAIN_S=2"
    )
    return parser


def start_server(args: argparse.Namespace, folder: Path, settings: Mapping[str, object]) -> ServerProcess:
    """Start the server as a user would, without waiting. An unknown setting is printed and ignored, so that the same
    program can measure older versions.
    """
    chosen = {name: str(value) for name, value in settings.items()}
    chosen |= dict(setting.split("=", 1) for setting in args.setting)
    known = {name: value for name, value in chosen.items() if name.lower() in Settings.model_fields}
    for name in chosen.keys() - known.keys():
        print(f"this version has no setting {name}", file=sys.stderr)
    RESULTS.mkdir(exist_ok=True)
    return ServerProcess(
        folder, precision=args.precision, cache_home=COMPILED, settings=known, log=RESULTS / "server.log"
    )


def limit_fds(num_allowed: int) -> None:
    """Limit open files of this process and of servers that it starts later. Raises SystemExit above the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < num_allowed:
        raise SystemExit(f"needs {num_allowed} open files; the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (num_allowed, hard))


async def read_metrics(port: int, *, key: str | None = None) -> dict[str, float]:
    """Samples of /metrics by name, summed over their labels. Raises RuntimeError if the server refuses."""
    answer = await ask_once(port, build_get("/metrics", key=key))
    if answer.ending != "200":
        raise RuntimeError(f"/metrics answers {answer.ending}")
    text = answer.body.decode()
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name] = values.get(sample.name, 0.0) + sample.value
    return values


async def wait_metrics(
    port: int, is_so: Callable[[dict[str, float]], bool], timeout_s: float, *, key: str | None = None
) -> dict[str, float]:
    """The first metrics that fulfil the condition, or the last ones before the timeout."""
    end_s = time.perf_counter() + timeout_s
    while not is_so(values := await read_metrics(port, key=key)) and time.perf_counter() < end_s:  # noqa: ASYNC110 - the
        # server offers no event
        await asyncio.sleep(POLL_S)
    return values


def is_idle(values: Mapping[str, float]) -> bool:
    """Whether nothing runs or waits and no block is in use."""
    return held(values) == {"running_sequences": 0, "waiting_sequences": 0, "kv_cache_usage_ratio": 0}


def held(values: Mapping[str, float]) -> dict[str, float]:
    names = ("running_sequences", "waiting_sequences", "kv_cache_usage_ratio")
    return {name: values[f"distilgpt2_{name}"] for name in names}


def read_rss_bytes(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def count_fds(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def describe_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items())) or "none"


def conclude(
    name: str, args: argparse.Namespace, figures: Sequence[Figure], *, kind: str = "reliability-", **details: Any
) -> NoReturn:
    """Print the table, write it as JSON (the file's name begins with `kind`), and exit with 1 if a bound was missed."""
    machine = describe_machine()
    print_header(name, machine)
    print()
    words = {True: "pass", False: "FAIL", None: ""}
    print_table(
        ["figure", "measured", "bound", ""],
        [[figure.name, figure.value, figure.bound, words[figure.is_kept]] for figure in figures],
    )
    write_json(f"{kind}{name}", machine, {"arguments": vars(args), "figures": figures, **details})
    sys.exit(any(figure.is_kept is False for figure in figures))
