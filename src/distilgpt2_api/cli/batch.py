"""`distilgpt2-api batch`: a file of requests worked through on this machine, each line exactly once."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click

from distilgpt2_api.batch.csv_table import CsvTable
from distilgpt2_api.batch.custom_ids import CustomIds
from distilgpt2_api.batch.errors import BatchFileError
from distilgpt2_api.batch.formats import JsonLines
from distilgpt2_api.batch.input_file import InputFile
from distilgpt2_api.batch.line_ids import DoneLines
from distilgpt2_api.batch.output_file import OutputFile
from distilgpt2_api.batch.recovery import recover
from distilgpt2_api.batch.run import Execute, Run
from distilgpt2_api.batch.turns import Turns
from distilgpt2_api.cli.batch_progress import BatchProgress
from distilgpt2_api.cli.options import given, model_option, num_threads_option, precision_option
from distilgpt2_api.core.errors import DrainingError, EngineFailedError
from distilgpt2_api.local_service import open_service
from distilgpt2_api.server.schemas.completions import CompletionRequest
from distilgpt2_api.settings import Settings

EXIT_LINES_FAILED = 5
"""All lines are done, but not all with success."""
LINE_BYTES = 4096
"""Of a line, for what stands in it beside the body."""
BATCHES_IN_FLIGHT = 2
"""One that runs, and one that waits to step in."""

CSV = ".csv"
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("batch")
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=FILE, required=True, help="Where answers go. What is there is gone on with.")
@click.option("--errors", type=FILE, help="Where lines that failed go. Default: beside the output, .errors.jsonl.")
@click.option("--unordered", "is_unordered", is_flag=True, help="Write each answer as soon as it is there.")
@click.option("--overwrite", "is_overwriting", is_flag=True, help="Begin anew, whatever is in the output.")
@model_option
@precision_option
@num_threads_option
def command(
    *,
    source: Path,
    output: Path,
    errors: Path | None,
    is_unordered: bool,
    is_overwriting: bool,
    **options: str | None,
) -> None:
    """Answer every request in the file INPUT, without a server: each exactly once, in INPUT's order.

    Each line of INPUT is a request in the format of OpenAI's Batch API ({"custom_id": "1", "method": "POST", "url":
    "/v1/completions", "body": {…}}), and each line of the output its answer. Routes: /v1/completions,
    /v1/chat/completions and /v1/score. Or both are tables, INPUT.csv: each row has a prompt in the column `prompt`;
    other columns named like a parameter of /v1/completions are parameters; the output has all columns and the
    completion.

    Stop it any way you like: the same command goes on where it stopped. Exit status: 0 if all lines have been answered,
    5 if some have failed, 1 if it could not go on.
    """
    settings = Settings(**given(**options))
    errors = errors or output.with_name(f"{output.name.removesuffix('.jsonl')}.errors.jsonl")
    _check_paths(source, output, errors)
    requests = InputFile(
        source, max_line_bytes=settings.max_body_bytes + LINE_BYTES, parameters=CompletionRequest.model_fields
    )
    if isinstance(requests.format, CsvTable):
        click.echo(f"parameters from columns: {', '.join(requests.format.parameters) or 'none'}", err=True)
    with ExitStack() as stack:
        done = stack.enter_context(DoneLines())
        answers = OutputFile(output, file_format=requests.format)
        stack.callback(answers.close)
        failures = OutputFile(errors, file_format=JsonLines())
        stack.callback(failures.close, is_kept_empty=False)
        if is_overwriting:
            answers.restart()
            failures.restart()
        remains = recover(requests, output=answers, errors=failures, done=done)
        progress = BatchProgress(remains, sys.stderr)
        turns = Turns(output=answers, errors=failures, is_ordered=not is_unordered, on_written=progress.note)
        custom_ids = stack.enter_context(CustomIds())

        def begin(execute: Execute) -> Run:
            return Run(requests, turns=turns, done=done, custom_ids=custom_ids, execute=execute)

        if remains.num_bytes:
            _finish(settings, begin, progress)
    num_lines, num_failed = progress.num_done_lines, progress.num_failed_lines
    click.echo(f"{num_lines} lines, {num_lines - num_failed} answered: {output}", err=True)
    if num_failed:
        click.echo(f"{num_failed} failed: {errors}", err=True)
        sys.exit(EXIT_LINES_FAILED)


def _finish(settings: Settings, begin: Callable[[Execute], Run], progress: BatchProgress) -> None:
    async def finish() -> None:
        async with open_service(settings) as execute:
            await begin(execute).finish(max_in_flight=BATCHES_IN_FLIGHT * settings.max_num_sequences)

    # The service would hand it on to who had it before. Here that is nobody: it ends the lines, and they the command.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with progress:
            asyncio.run(finish())
    except (KeyboardInterrupt, DrainingError):
        raise BatchFileError(f"stopped; {_kept(progress)}") from None
    except (BatchFileError, EngineFailedError) as error:
        raise BatchFileError(f"{error}; {_kept(progress)}") from None


def _kept(progress: BatchProgress) -> str:
    return f"{progress.num_done_lines} lines are done and stay so: the same command goes on from there"


def _check_paths(source: Path, output: Path, errors: Path) -> None:
    """Raises BatchFileError."""
    if (source.suffix.lower() == CSV) != (output.suffix.lower() == CSV):
        raise BatchFileError(f"{source} and {output} must both be tables (.csv), or both JSON lines")
    if len({path.resolve() for path in (source, output, errors)}) < 3:
        raise BatchFileError("input, output and errors must be three files")
