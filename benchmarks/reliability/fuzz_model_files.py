"""Corrupts model files at random and opens them as at a start: no crash, no hang, no memory for wrong sizes.

    python -m benchmarks.reliability.fuzz_model_files --files 10000

Each seed corrupts one file of a small model: header, offsets and lengths of safetensors (a checkpoint, an index of
shards, a compiled model), archives and pickles of PyTorch, an adapter, `config.json`, `generation_config.json`,
tokenizer files, special tokens, a chat template; by structure and by bytes; or replaces it with a pipe, a device, a
folder or a link. The file must either load (a harmless change) or be refused with a one-line ModelError that names the
file. Everything else is a failure and exits with 1:

- another exception, or a message of several lines, without the file's name, or too long;
- a crash: the files are opened in separate processes, and the seed of a crash is known;
- more than a second for a file;
- memory above twice the file and 16 MiB. This is the process's peak of resident memory, which Linux resets on request
  (`/proc/self/clear_refs`), minus the memory before; so it includes memory of NumPy and of the Rust library. RLIMIT_AS
  bounds reserved memory, at 1 GiB above the process's memory at its start.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.reliability.model_mutations import (
    ADAPTER_FILES,
    COMPILED_FILE,
    PICKLES,
    Corruption,
    corrupt,
    write_model,
)
from benchmarks.report import print_table

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.errors import InvalidRequestError, ModelError
from distilgpt2_api.core.model_folder import GENERATION_CONFIG_FILE
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.conversion import convert_model
from distilgpt2_api.model.weights.checkpoint import open_checkpoint
from distilgpt2_api.model.weights.compiled_file import read_compiled_model
from distilgpt2_api.model.weights.prepared import prepare_weights
from distilgpt2_api.model.weights.weight_files import INDEX_FILE, SINGLE_FILE
from distilgpt2_api.text.chat_templates.files import load_chat_template
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

MAX_S = 1.0
HANG_S = 20.0
"""After this time the process is ended."""
MIB = 1 << 20
SLACK_BYTES = 16 * MIB
RESERVED_BYTES = 1 << 30
MAX_MESSAGE_CHARACTERS = 1000
TEXT = "Once upon a time, 12 kings\n\n sang <|endoftext|> naïvely: 東京 🎉"
FOLDER = "FOLDER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    seed: int
    corruption: Corruption
    verdict: str
    """`loaded`, a ModelError's name, or a failure that begins with `FAILED`."""
    message: str = ""
    elapsed_s: float = 0.0
    memory_bytes: int = 0

    @property
    def is_failure(self) -> bool:
        return self.verdict.startswith("FAILED")


@dataclass
class Tally:
    """Collects and prints outcomes."""

    outcomes: list[Outcome] = field(default_factory=list)

    def print(self) -> None:
        counts = Counter((outcome.corruption.target, outcome.verdict.split(":")[0]) for outcome in self.outcomes)
        verdicts = sorted({verdict for _, verdict in counts})
        targets = sorted({target for target, _ in counts})
        rows = [[target, *(counts[target, verdict] for verdict in verdicts)] for target in targets]
        print_table(["file", *verdicts], rows)
        slowest = max(self.outcomes, key=lambda outcome: outcome.elapsed_s)
        largest = max(self.outcomes, key=lambda outcome: outcome.memory_bytes - 2 * outcome.corruption.num_bytes)
        print(f"slowest: {slowest.elapsed_s * 1000:.0f} ms, seed {slowest.seed} ({slowest.corruption.how})")
        print(
            f"most memory: {largest.memory_bytes / MIB:.1f} MiB for {largest.corruption.num_bytes / MIB:.2f} MiB of "
            f"{largest.corruption.target}, seed {largest.seed} ({largest.corruption.how})"
        )
        for outcome in self.failures:
            print(f"{outcome.verdict}\n  seed {outcome.seed}, {outcome.corruption}\n  {outcome.message[:500]}")
        print(f"{len(self.outcomes)} files, {len(self.failures)} failures")

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.is_failure]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first file; the others follow")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(arguments)
    tally = fuzz(range(args.seed, args.seed + args.files), num_workers=args.workers)
    tally.print()
    raise SystemExit(1 if tally.failures else 0)


def fuzz(seeds: range, *, num_workers: int) -> Tally:
    tally = Tally()
    parts = [seeds[start::num_workers] for start in range(num_workers)]
    with ThreadPoolExecutor(num_workers) as pool:
        for outcomes in pool.map(lambda part: list(_in_processes(part)), parts):
            tally.outcomes += outcomes
    return tally


def _in_processes(seeds: range) -> Iterator[Outcome]:
    """Open the files in one process; if it dies, continue with the next file in another process."""
    while seeds:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=_work, args=(seeds, sender))
        process.start()
        sender.close()
        verdict = ""
        while seeds and not verdict:
            try:
                if receiver.poll(HANG_S):
                    yield receiver.recv()
                    seeds = seeds[1:]
                else:
                    verdict = f"FAILED: no answer in {HANG_S} s"
            except EOFError:
                process.join(HANG_S)
                verdict = f"FAILED: the process died, exit code {process.exitcode}"
        process.kill()
        process.join()
        receiver.close()
        if verdict:
            yield Outcome(seed=seeds[0], corruption=_corrupt_again(seeds[0]), verdict=verdict)
            seeds = seeds[1:]


def _corrupt_again(seed: int) -> Corruption:
    with tempfile.TemporaryDirectory() as folder:
        return corrupt(write_model(Path(folder)), Path(tempfile.mkdtemp(dir=folder)), seed)


def _work(seeds: range, sender: Connection) -> None:
    with tempfile.TemporaryDirectory() as home:
        files = write_model(Path(tempfile.mkdtemp(dir=home)))
        limit_bytes = _read_status("VmSize") + RESERVED_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
        for seed in seeds:
            folder = Path(home, "corrupted", FOLDER)
            folder.mkdir(parents=True)
            sender.send(_open(folder, seed, corrupt(files, folder, seed)))
            shutil.rmtree(folder.parent)


def _open(folder: Path, seed: int, corruption: Corruption) -> Outcome:
    """Open one file, and measure time and memory."""
    Path("/proc/self/clear_refs").write_text("5")
    before_bytes = _read_status("VmRSS")
    started_s = time.perf_counter()
    message = ""
    try:
        open_file(folder, corruption.target)
        verdict = "loaded"
    except ModelError as error:
        message = str(error)
        is_fit = len(message.splitlines()) == 1 and FOLDER in message and len(message) < MAX_MESSAGE_CHARACTERS
        verdict = type(error).__name__ if is_fit and message.isprintable() else "FAILED: a message that is not one line"
    except BaseException as error:  # noqa: BLE001 - the library's panics are not Exceptions
        verdict, message = f"FAILED: {type(error).__name__}", str(error)
    elapsed_s = time.perf_counter() - started_s
    memory_bytes = max(0, _read_status("VmHWM") - before_bytes)
    if elapsed_s > MAX_S:
        verdict = f"FAILED: {elapsed_s:.1f} s"
    if memory_bytes > 2 * corruption.num_bytes + SLACK_BYTES:
        verdict = f"FAILED: {memory_bytes} bytes of memory"
    return Outcome(
        seed=seed,
        corruption=corruption,
        verdict=verdict,
        message=message,
        elapsed_s=elapsed_s,
        memory_bytes=memory_bytes,
    )


def open_file(folder: Path, target: str) -> None:
    """Read the file as at a start. Raises ModelError; any other exception is a bug."""
    config = read_model_config(folder)
    if target in ("config.json", SINGLE_FILE, INDEX_FILE):
        prepare_weights(config, open_checkpoint(folder, config), Precision.INT8)
    elif target in PICKLES:
        convert_model(folder, folder.parent / "converted", weights=folder / target)
    elif target in ADAPTER_FILES:
        convert_model(folder, folder.parent / "converted", adapter=folder)
    elif target == COMPILED_FILE:
        read_compiled_model(folder, config, Precision.INT8)
    elif target != GENERATION_CONFIG_FILE:  # read with the config
        tokenizer = Tokenizer.from_folder(folder)
        with suppress(InvalidRequestError):  # a byte without a token
            tokenizer.decode(tokenizer.with_special_tokens(tokenizer.encode(TEXT)))
        load_chat_template(folder, None)


def _read_status(name: str) -> int:
    """Bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise SystemExit(f"no {name} in /proc/self/status: this program needs Linux")


if __name__ == "__main__":
    main()
