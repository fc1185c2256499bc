"""`distilgpt2-api plan`: how many nodes a load needs, and what they cost."""

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from distilgpt2_api.capacity.curve_file import EXAMPLE_CURVE, read_node_curve, write_node_curve
from distilgpt2_api.capacity.fleet import Fleet, Targets, size_fleet
from distilgpt2_api.capacity.node_curve import NodeCurve
from distilgpt2_api.capacity.queueing_model import RequestShape, ServiceRate
from distilgpt2_api.cli.local_engine import open_engine
from distilgpt2_api.cli.options import (
    FiniteRange,
    format_option,
    model_option,
    num_threads_option,
    overrides_from,
    precision_option,
)
from distilgpt2_api.cli.terminal import progress_stream
from distilgpt2_api.engine.node_measurement import NodeMeasurement
from distilgpt2_api.settings import Settings

MAX_TOKENS = 1 << 20
MAX_MS = 3_600_000
MAX_QPS = 1_000_000_000
MAX_PRICE = 1_000_000
OPEN = {"min_open": True}
MEASURED_AS = {"prefix_caching": True, "prefix_cache_bytes": "1TiB", "max_draft_tokens": 0}
"""Settings that a measurement overrides: the KV cache must hold everything, and a step must compute one token for each
sequence."""


@click.command("plan")
@click.option("--qps", type=FiniteRange(0, MAX_QPS, **OPEN), required=True, help="Requests per second, in total.")
@click.option("--tokens", type=click.IntRange(1, MAX_TOKENS), required=True, help="Completion tokens per request.")
@click.option(
    "--prompt-tokens",
    type=click.IntRange(1, MAX_TOKENS),
    default=32,
    show_default=True,
    help="Prompt tokens per request.",
)
@click.option(
    "--cached-share",
    type=FiniteRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of prompt tokens that are in the prefix cache.",
)
@click.option(
    "--max-utilisation",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=0.7,
    show_default=True,
    help="Highest share of a node's capacity to use.",
)
@click.option("--max-ttft-ms", type=FiniteRange(0, MAX_MS, **OPEN), help="Limit on the time to first token.")
@click.option("--max-tpot-ms", type=FiniteRange(0, MAX_MS, **OPEN), help="Limit on the time per output token.")
@click.option(
    "--percentile",
    "percent",
    type=FiniteRange(50, 99.99),
    default=99.0,
    show_default=True,
    help="The percentile of requests for which both limits hold.",
)
@click.option(
    "--spare-nodes",
    type=click.IntRange(0, 1000),
    default=0,
    show_default=True,
    help="Additional nodes, for example to replace a failed one.",
)
@click.option("--price", type=FiniteRange(0, MAX_PRICE, **OPEN), help="Price of a node per hour, in any currency.")
@click.option(
    "--measured",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A node curve saved by --save. Default: an example.",
)
@click.option("--measure", "is_measuring", is_flag=True, help="Measure this machine first, with its model.")
@click.option(
    "--save", type=click.Path(dir_okay=False, path_type=Path), help="File in which --measure saves its curve."
)
@model_option
@precision_option
@num_threads_option
@format_option
def command(
    *,
    qps: float,
    spare_nodes: int,
    price: float | None,
    output_format: str,
    tokens: int,
    prompt_tokens: int,
    cached_share: float,
    **options: Any,
) -> None:
    """Calculate how many nodes a load needs, their utilisation, latencies and the cost of a million tokens.

    A node is one machine or pod with one engine. A node curve describes its speed: by default an example from another
    machine, which the output names; with --measured a curve from a file; with --measure this machine's, which takes
    seconds and needs an idle machine. --model, --precision and --num-threads choose what is measured. docs/scale.md
    explains the arithmetic.
    """
    shape = RequestShape(num_prompt_tokens=prompt_tokens, num_completion_tokens=tokens, cached_share=cached_share)
    curve = _curve(shape, **options)
    targets = Targets(
        max_utilisation=options["max_utilisation"],
        percent=options["percent"],
        max_ttft_s=_seconds(options["max_ttft_ms"]),
        max_tpot_s=_seconds(options["max_tpot_ms"]),
    )
    fleet = size_fleet(ServiceRate.of(curve, shape), qps, targets, num_spare_nodes=spare_nodes)
    figures = _figures(fleet, targets.percent, price)
    if output_format == "json":
        origin = {"model": curve.model, "precision": curve.precision, "measured_on": curve.measured_on}
        click.echo(json.dumps({"curve": origin, **figures}, indent=1))
    else:
        click.echo(_page(curve, figures))


def _curve(
    shape: RequestShape, *, measured: Path | None, is_measuring: bool, save: Path | None, **options: Any
) -> NodeCurve:
    engine_options = overrides_from(**{name: options[name] for name in ("model", "precision", "num_threads")})
    if is_measuring and measured is not None:
        raise click.UsageError("--measured and --measure exclude each other.")
    if not is_measuring:
        if save is not None or engine_options:
            raise click.UsageError("--save, --model, --precision and --num-threads need --measure.")
        return read_node_curve(measured or EXAMPLE_CURVE)
    curve = _measure(shape, Settings(**engine_options, **MEASURED_AS))
    if save is not None:
        write_node_curve(curve, save)
    return curve


def _measure(shape: RequestShape, settings: Settings) -> NodeCurve:
    with open_engine(settings) as engine:
        measurement = NodeMeasurement(
            engine=engine,
            config=settings.engine_config(),
            num_prompt_tokens=shape.num_prompt_tokens,
            num_completion_tokens=shape.num_completion_tokens,
        )
        with click.progressbar(length=measurement.num_parts, label="measuring", file=progress_stream()) as bar:
            return measurement.run(
                model=settings.model_label(),
                measured_on=f"{measurement.config.num_threads} threads of {_processor()}, {datetime.now(UTC):%Y-%m-%d}",
                on_measured=bar.update,
            )


def _processor() -> str:
    """Its name if the system knows it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


def _figures(fleet: Fleet, percent: float, price: float | None) -> dict[str, Any]:
    node = fleet.node
    figures: dict[str, Any] = {
        "num_nodes": fleet.num_nodes,
        "num_spare_nodes": fleet.num_spare_nodes,
        "completion_tokens_per_s": fleet.completion_tokens_per_s,
        "node": {
            "requests_per_s": node.requests_per_s,
            "max_requests_per_s": node.rate.max_requests_per_s,
            "max_running_sequences": node.rate.num_slots,
            "utilisation": node.utilisation,
            "running_sequences": node.num_running,
            "waiting_sequences": node.num_waiting,
            "line_share": node.queued_share,
            "queue_time_ms": 1000 * node.queue_time_s,
            "ttft_p50_ms": 1000 * node.ttft_s(50),
            "ttft_percentile_ms": 1000 * node.ttft_s(percent),
            "tpot_p50_ms": 1000 * node.tpot_s(50),
            "tpot_percentile_ms": 1000 * node.tpot_s(percent),
            "latency_ms": 1000 * node.latency_s,
        },
        "percentile": percent,
    }
    if price is not None:
        figures["cost_per_million_tokens"] = fleet.cost_per_million_tokens(price)
    return figures


def _page(curve: NodeCurve, figures: dict[str, Any]) -> str:
    node = figures["node"]
    percent = f"p{figures['percentile']:g}"
    spare = f", and {figures['num_spare_nodes']} spare" if figures["num_spare_nodes"] else ""
    rows = [
        ("nodes", f"{figures['num_nodes']}{spare}"),
        ("utilisation", f"{100 * node['utilisation']:.0f} % of {node['max_requests_per_s']:.2f} requests/s a node"),
        ("tokens", f"{figures['completion_tokens_per_s']:.0f} completion tokens/s"),
        ("running", f"{node['running_sequences']:.1f} sequences a node, {node['max_running_sequences']} at most"),
        (
            "waiting",
            f"{node['waiting_sequences']:.2f} a node; {100 * node['line_share']:.2f} % of requests wait in the queue",
        ),
        ("queue time", f"{node['queue_time_ms']:.0f} ms on average"),
        ("TTFT", f"{node['ttft_p50_ms']:.0f} ms p50, {node['ttft_percentile_ms']:.0f} ms {percent}"),
        ("TPOT", f"{node['tpot_p50_ms']:.1f} ms p50, {node['tpot_percentile_ms']:.1f} ms {percent}"),
        ("end to end", f"{node['latency_ms']:.0f} ms on average"),
    ]
    if "cost_per_million_tokens" in figures:
        rows.append(("cost", f"{figures['cost_per_million_tokens']:.4g} a million completion tokens"))
    origin = f"{curve.model}, {curve.precision}, measured on {curve.measured_on}"
    return "\n".join([origin, *(f"{name:<13}{value}" for name, value in rows)])
