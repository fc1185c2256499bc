"""The comparison's tables and plots, made from its JSON file."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import asdict
from typing import Any

import pytest
from benchmarks.compare_report import describe_results, draw_closed_loop, draw_open_loop, print_results
from benchmarks.workload import Workload

SERVER, LIBRARY = "server", "in process, static batch"
CLOSED = Workload(num_clients=8, num_requests=16)
OPEN = Workload(num_clients=64, num_requests=40, rate=4.0, max_prompt_tokens=512)


def run(rate: float, client_share: float | None) -> dict[str, Any]:
    times = dict.fromkeys(("ttft_p50_s", "ttft_p99_s", "itl_p50_s", "itl_p99_s"), 0.01)
    costs = {"cpu_s": 1.5, "client_cpu_s": 0.1, "rss_bytes": 300 << 20, "pss_bytes": 200 << 20}
    return {"rate": rate, "client_share": client_share, **times, **costs}


@pytest.fixture
def seen() -> dict[str, Any]:
    """Results of a run, converted to JSON and back like those of a past run."""
    runs = {
        (load, peer): [run(rate, share), run(2 * rate, share)]
        for load in ("8 clients", "4 requests/s")
        for peer, rate, share in (("int8", 1000.0, 0.01), ("slow", 250.0, None))
    }
    kinds = {"int8": ("ours", SERVER), "slow": ("Slow <1>", LIBRARY), "gone": ("Gone", SERVER)}
    described = describe_results(
        kinds={name: {"title": title, "how": how} for name, (title, how) in kinds.items()},
        loads={"8 clients": asdict(CLOSED), "4 requests/s": asdict(OPEN)},
        runs=runs,
        starts_s={"int8": [1.0], "slow": [5.0, 7.0]},
        missing={"gone": "make peers"},
        versions={"int8": {}, "slow": {"slow": "1.2"}},
    )
    again: dict[str, Any] = json.loads(json.dumps(described))
    return again


def test_each_load_has_a_table_of_all_peers_and_their_ratio_to_ours(
    seen: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    print_results(seen)

    lines = capsys.readouterr().out.splitlines()
    assert "8 clients: closed loop, 16 requests, 32-token prompts, 128 new tokens" in lines
    assert (
        "4 requests/s: open loop, Poisson arrivals, 40 requests, prompts of 32 to 512 tokens, 128 new tokens" in lines
    )
    ours, slow = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[7:9])
    assert ours[:3] == ["ours", "1500 (1000-2000)", "-"]
    assert slow[:3] == ["Slow <1>", "375 (250-500)", "4.00 (4.00-4.00)"]
    assert (ours[-1], slow[-1]) == ("1.0 %", "-")


def test_costs_have_version_and_kind_and_missing_peers_a_reason(
    seen: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    print_results(seen)

    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if "slow 1.2" in line]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        "Slow <1>",
        LIBRARY,
        "slow 1.2",
        "6.00 (5.00-7.00)",
        "300",
        "200",
    ]
    assert "Gone is missing: make peers" in out


def test_plots_have_a_line_for_every_peer_that_was_measured(seen: dict[str, Any]) -> None:
    for drawing in (draw_closed_loop(seen), draw_open_loop(seen)):
        assert drawing is not None
        texts = {element.text for element in ET.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")}
        assert {"ours", "Slow <1>"} <= texts
        assert "Gone" not in texts


def test_a_run_without_a_kind_of_loop_has_no_plot_of_it(seen: dict[str, Any]) -> None:
    del seen["loads"]["4 requests/s"]

    assert draw_open_loop(seen) is None
    assert draw_closed_loop(seen) is not None
