"""The output of every benchmark: the machine, a table, and the same data as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
"""Ignored by git, because results differ by machine."""
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
"""Instruction sets by which the kernels are chosen."""
WRITTEN = "written: "
"""The path of the results follows it in what is printed."""
LIBRARIES = ("numpy", "tokenizers", "uvicorn", "gunicorn", "fastapi")


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of several measurements."""

    median: float
    smallest: float
    largest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __format__(self, spec: str) -> str:
        """The median, then the range: `2450 (2301-2466)`."""
        return f"{self.median:{spec}} ({self.smallest:{spec}}-{self.largest:{spec}})"


def describe_machine() -> dict[str, Any]:
    model, flags = _read_cpu()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "instructions": [flag for flag in FLAGS if flag in flags],
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in LIBRARIES},
    }


def print_header(title: str, machine: Mapping[str, Any]) -> None:
    """Print two lines. A load average well above zero means that the machine was shared: compare ratios, not rates."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    load = " ".join(map(str, machine["load_average"]))
    print(f"{title} · {machine['cpu']}, {machine['cores']} cores, {' '.join(machine['instructions'])} · load {load}")
    print(f"Python {machine['python']}, {versions} · {machine['time']}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print an aligned markdown table: the first column to the left, figures to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        " | ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    rule = " | ".join("-" * (width - (index > 0)) + ":" * (index > 0) for index, width in enumerate(widths))
    print("\n".join(f"| {line} |" for line in (lines[0], rule, *lines[1:])) + "\n")


def write_json(name: str, machine: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Writes `results/NAME-TIME.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{machine['time'].replace(':', '')}.json"
    path.write_text(json.dumps({"machine": machine, **results}, indent=1, default=_to_json) + "\n")
    print(f"{WRITTEN}{path}")


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that at least `percent` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def repeat_interleaved(measurements: Mapping[str, Callable[[], Any]], num_repeats: int) -> dict[str, list[Any]]:
    """Results of each measurement; the measurements alternate, so that other load affects all of them alike."""
    results: dict[str, list[Any]] = {name: [] for name in measurements}
    for _ in range(num_repeats):
        for name, measure in measurements.items():
            results[name].append(measure())
    return results


def _read_cpu() -> tuple[str, set[str]]:
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields.get("model name", platform.machine()), set(fields.get("flags", "").split())


def _to_json(value: object) -> object:
    if isinstance(value, Spread):
        return {"median": value.median, "min": value.smallest, "max": value.largest}
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
