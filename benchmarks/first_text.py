"""Seconds from a clone of the repository to the first text, and to the first answer of a model of your own.

    python -m benchmarks.first_text

The commands are those of the pages, typed without a pause: a clone of this checkout's last commit, `make install` in
it, a text on the command line; then a model's folder, served, and asked over HTTP. Packages come from pip's cache or
the index, as on any machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import describe_machine, print_header, print_table, write_json

ROOT = Path(__file__).parents[1]
MODEL = Path("src/distilgpt2_api/models/storyteller")
PROMPT = "Once upon a time"
RETRY_S = 0.02
TIMEOUT_S = 60.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="your model's folder (default: a copy of the demo model)")
    args = parser.parse_args(arguments)
    machine = describe_machine()
    print_header("first text", machine)
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(Path(folder), model=args.model)
    print()
    print_table(
        ["step", "seconds", "since the beginning"],
        [
            [step, f"{step_s:.1f}", f"{sum(list(seconds.values())[: index + 1]):.1f}"]
            for index, (step, step_s) in enumerate(seconds.items())
        ],
    )
    write_json("first_text", machine, {"arguments": vars(args), "results": seconds})


def measure(folder: Path, *, model: Path | None) -> dict[str, float]:
    """Seconds of each step, in order."""
    checkout = folder / "distilgpt2-api"
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DISTILGPT2_") and name not in ("MAKEFLAGS", "MAKELEVEL", "VIRTUAL_ENV")
    }
    environment |= {"XDG_DATA_HOME": str(folder / "data"), "DISTILGPT2_CACHE_HOME": str(folder / "compiled")}
    seconds: dict[str, float] = {}

    def run(step: str, *command: str | Path, within: Path = checkout) -> None:
        began_s = time.perf_counter()
        subprocess.run(command, cwd=within, env=environment, stdout=subprocess.DEVNULL, check=True)
        seconds[step] = time.perf_counter() - began_s

    program = checkout / ".venv" / "bin" / "distilgpt2-api"
    run("git clone", "git", "clone", "--quiet", ROOT, checkout, within=folder)
    run("make install", "make", "--silent", "install")
    run("first text, on the command line", program, "generate", PROMPT)
    shutil.copytree(model or checkout / MODEL, checkout / "my-model")
    began_s = time.perf_counter()
    command = [
        str(program),
        "serve",
        "--model",
        "./my-model",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--log-format",
        "json",
    ]
    with subprocess.Popen(command, cwd=checkout, env=environment, stderr=subprocess.PIPE, text=True) as service:
        try:
            assert service.stderr is not None
            url = json.loads(service.stderr.readline())["url"]
            complete(url)
            seconds["first answer of your own model"] = time.perf_counter() - began_s
        finally:
            service.terminate()
    return seconds


def complete(url: str) -> None:
    """Send a request until the model has loaded."""
    body = json.dumps({"prompt": PROMPT, "max_tokens": 20}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body, {"content-type": "application/json"})
    end_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                answer.read()
                return
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > end_s:
                raise
        time.sleep(RETRY_S)


if __name__ == "__main__":
    main()
