"""Tables and plots of `compare.py`'s results, made from the JSON file only, so that a past run can be shown again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.line_plot import Line, Point, draw_plot
from benchmarks.report import Spread, print_table

MIB = 1 << 20
OURS = "int8"


def describe_results(
    *,
    kinds: Mapping[str, Mapping[str, str]],
    loads: Mapping[str, Mapping[str, Any]],
    runs: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    starts_s: Mapping[str, Sequence[float]],
    missing: Mapping[str, str],
    versions: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """The results as JSON values. `runs` are keyed by load and peer."""
    return {
        "kinds": kinds,
        "loads": loads,
        "runs": [{"load": load, "peer": peer, "runs": [*each]} for (load, peer), each in runs.items()],
        "starts_s": starts_s,
        "missing": missing,
        "versions": versions,
    }


def print_results(seen: Mapping[str, Any]) -> None:
    num_repeats = max((len(entry["runs"]) for entry in seen["runs"]), default=0)
    print(f"\nMedian (range) of {num_repeats}; CPU in seconds per 1000 tokens; client: its share of all CPU time\n")
    for load in seen["loads"]:
        print(f"{load}: {describe_load(seen['loads'][load])}\n")
        print_table(
            ["", "tokens/s", "ours / its", "TTFT p50, ms", "p99", "ITL p50, ms", "p99", "CPU", "client"],
            [rate_row(seen, load, peer) for peer in peers_of(seen, load)],
        )
    print_table(
        ["", "how", "version", "first token after, s", "RSS, MiB", "PSS, MiB"],
        [cost_row(seen, peer) for peer in seen["starts_s"]],
    )
    for peer, reason in seen["missing"].items():
        print(f"{seen['kinds'][peer]['title']} is missing: {reason}\n")


def describe_load(load: Mapping[str, Any]) -> str:
    shortest, longest = load["min_prompt_tokens"], load["max_prompt_tokens"]
    prompts = f"{shortest}-token prompts" if shortest == longest else f"prompts of {shortest} to {longest} tokens"
    loop = "closed loop" if load["rate"] is None else "open loop, Poisson arrivals"
    return f"{loop}, {load['num_requests']} requests, {prompts}, {load['num_new_tokens']} new tokens"


def peers_of(seen: Mapping[str, Any], load: str) -> list[str]:
    return [entry["peer"] for entry in seen["runs"] if entry["load"] == load]


def runs_of(seen: Mapping[str, Any], load: str, peer: str) -> list[Mapping[str, Any]]:
    """A peer's runs; empty if the peer is missing."""
    return next((e["runs"] for e in seen["runs"] if (e["load"], e["peer"]) == (load, peer)), [])


def rate_row(seen: Mapping[str, Any], load: str, peer: str) -> list[str]:
    runs = runs_of(seen, load, peer)
    # Ratios within each round: other load on the machine affects both sides.
    ratios = [ours["rate"] / run["rate"] for ours, run in zip(runs_of(seen, load, OURS), runs, strict=False)]
    shares = [100 * run["client_share"] for run in runs if run["client_share"] is not None]
    return [
        seen["kinds"][peer]["title"],
        f"{spread(runs, 'rate'):.0f}",
        f"{Spread.of(ratios):.2f}" if ratios and peer != OURS else "-",
        f"{spread(runs, 'ttft_p50_s', 1000):.0f}",
        f"{spread(runs, 'ttft_p99_s', 1000):.0f}",
        f"{spread(runs, 'itl_p50_s', 1000):.1f}",
        f"{spread(runs, 'itl_p99_s', 1000):.1f}",
        f"{spread(runs, 'cpu_s').median:.2f}",
        f"{Spread.of(shares).median:.1f} %" if shares else "-",
    ]


def cost_row(seen: Mapping[str, Any], peer: str) -> list[str]:
    """Starts, and the highest memory after any load."""
    runs = [run for entry in seen["runs"] if entry["peer"] == peer for run in entry["runs"]]
    versions = ", ".join(f"{name} {number}" for name, number in seen["versions"][peer].items())
    return [
        seen["kinds"][peer]["title"],
        seen["kinds"][peer]["how"],
        versions or "this checkout",
        f"{Spread.of(seen['starts_s'][peer]):.2f}",
        *(f"{max(run[name] for run in runs) / MIB:.0f}" if runs else "-" for name in ("rss_bytes", "pss_bytes")),
    ]


def spread(runs: Sequence[Mapping[str, Any]], name: str, factor: float = 1.0) -> Spread:
    return Spread.of([factor * run[name] for run in runs])


def draw_closed_loop(seen: Mapping[str, Any]) -> str | None:
    """A plot of tokens/s over clients; None without a closed loop."""
    loads = {
        name: load["num_clients"]
        for name, load in seen["loads"].items()
        if load["rate"] is None and load["min_prompt_tokens"] == load["max_prompt_tokens"]
    }
    return _draw(seen, loads, ("Tokens per second, 32-token prompts", "clients", "tokens/s"), figure="rate")


def draw_open_loop(seen: Mapping[str, Any]) -> str | None:
    """A plot of TTFT over the arrival rate; None without an open loop."""
    loads = {name: load["rate"] for name, load in seen["loads"].items() if load["rate"] is not None}
    titles = ("Time to first token as requests arrive, p50", "requests per second", "ms")
    return _draw(seen, loads, titles, figure="ttft_p50_s", factor=1000.0, is_y_logarithmic=True)


def _draw(
    seen: Mapping[str, Any],
    loads: Mapping[str, float],
    titles: tuple[str, str, str],
    *,
    figure: str,
    factor: float = 1.0,
    is_y_logarithmic: bool = False,
) -> str | None:
    """`titles`: of the plot, the x axis and the y axis."""
    lines = []
    for peer in seen["starts_s"]:
        spreads = {x: spread(runs, figure, factor) for load, x in loads.items() if (runs := runs_of(seen, load, peer))}
        points = [Point(x=x, y=one.median, low=one.smallest, high=one.largest) for x, one in sorted(spreads.items())]
        if points:
            lines.append(Line(title=seen["kinds"][peer]["title"], points=points))
    if not lines:
        return None
    return draw_plot(*titles, lines, is_y_logarithmic=is_y_logarithmic)
