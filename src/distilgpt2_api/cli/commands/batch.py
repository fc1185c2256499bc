"""`distilgpt2-api batch`: answers a file of requests, on this machine or a cluster, each line exactly once."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import click
from click.core import ParameterSource

from distilgpt2_api.batch.custom_ids import CustomIds
from distilgpt2_api.batch.errors import BatchFileError, ClusterError
from distilgpt2_api.batch.files.cluster_pipe import ANY_CLUSTER, Assignment
from distilgpt2_api.batch.files.csv_table import CsvTable
from distilgpt2_api.batch.files.formats import JsonLines
from distilgpt2_api.batch.files.input_file import InputFile
from distilgpt2_api.batch.files.line_ids import CompletedLines
from distilgpt2_api.batch.files.ordered_writer import OrderedWriter
from distilgpt2_api.batch.files.output_file import OutputFile
from distilgpt2_api.batch.files.recovery import ResumeState, recover
from distilgpt2_api.batch.files.run import Run
from distilgpt2_api.batch.lines import LINE_FRAME_BYTES
from distilgpt2_api.cli.batch_cluster import check_ray, finish_on_cluster
from distilgpt2_api.cli.batch_progress import BatchProgress
from distilgpt2_api.cli.options import model_option, num_threads_option, overrides_from, precision_option
from distilgpt2_api.core.errors import DrainingError, EngineFailedError
from distilgpt2_api.core.model_files import is_folder
from distilgpt2_api.server.protocols.openai.completions.schema import DEFAULT_MAX_TOKENS, CompletionRequest
from distilgpt2_api.settings import Settings
from distilgpt2_api.settings.sources import child_environment

EXIT_LINES_FAILED = 5
"""All lines are complete, but some have failed."""
BATCHES_IN_FLIGHT = 2
"""Lines in flight, in engine batches: one that runs, and one that waits."""

MAX_PASS_LINES = 200_000
"""Lines given to a cluster at once: Ray Data keeps about 5 KB for each group of lines until the end."""
"""Ray's name for the cluster that runs on this machine."""
RAY_CLIENT = "ray://"

CSV = ".csv"
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("batch")
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=FILE, required=True, help="File for answers. An incomplete one is continued.")
@click.option("--errors", type=FILE, help="File for failed lines. Default: beside the output, .errors.jsonl.")
@click.option("--unordered", "is_unordered", is_flag=True, help="Write each answer as soon as it is ready.")
@click.option("--overwrite", "is_overwriting", is_flag=True, help="Start over and replace the output.")
@click.option(
    "--retry-failed",
    "is_retrying",
    is_flag=True,
    help="Ask lines that failed again, corrected in place or as they are.",
)
@click.option("--ray", "is_on_ray", is_flag=True, help="Compute the answers on a Ray cluster.")
@click.option(
    "--ray-address",
    metavar="HOST:PORT",
    envvar="RAY_ADDRESS",
    help="The cluster's address; this machine must be one of its nodes. Default: RAY_ADDRESS, else the local cluster.",
)
@click.option(
    "--replicas",
    "num_replicas",
    metavar="N",
    type=click.IntRange(min=1),
    help="Workers on the cluster, each with --num-threads cores (default: 1). Default: as many as fit.",
)
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
    is_retrying: bool,
    is_on_ray: bool,
    ray_address: str | None,
    num_replicas: int | None,
    **options: str | None,
) -> None:
    """Answer each request in the file INPUT exactly once, in INPUT's order. Needs no server.

    Each line of INPUT is a request in the format of OpenAI's Batch API ({"custom_id": "1", "method": "POST", "url":
    "/v1/completions", "body": {…}}), and each line of the output is an answer. Routes: /v1/completions,
    /v1/chat/completions and /v1/score. Input and output may also be CSV tables: the column `prompt` has the prompts,
    other columns named like a parameter of /v1/completions are parameters, and the output adds the completion.

    You can stop the command in any way; the same command, without --overwrite, then continues. Exit status: 0 if all
    lines were answered, 5 if some failed, 1 if it could not continue.
    """
    if is_overwriting and is_retrying:
        raise click.UsageError("--overwrite asks every line again: leave out --retry-failed")
    _check_cluster_options(is_on_ray=is_on_ray, ray_address=ray_address, num_replicas=num_replicas)
    chosen = overrides_from(**options)
    settings = Settings(**chosen)
    errors = errors or output.with_name(f"{output.name.removesuffix('.jsonl')}.errors.jsonl")
    _check_paths(source, output, errors)
    requests = InputFile(
        source, max_line_bytes=settings.max_body_bytes + LINE_FRAME_BYTES, parameters=CompletionRequest.model_fields
    )
    if isinstance(requests.format, CsvTable):
        _explain_columns(requests.format)
    with ExitStack() as stack:
        completed = stack.enter_context(CompletedLines())
        answers = OutputFile(output, file_format=requests.format)
        stack.callback(answers.close)
        failures = OutputFile(errors, file_format=JsonLines())
        stack.callback(failures.close, is_kept_empty=False)
        if is_overwriting:
            answers.restart()
            failures.restart()
        state = recover(requests, output=answers, errors=failures, completed=completed, is_retrying=is_retrying)
        _show_completed(state)
        progress = BatchProgress(state, sys.stderr)
        work = Work(
            requests=requests,
            answers=answers,
            failures=failures,
            completed=completed,
            num_pending_lines=state.num_pending_lines,
            is_ordered=not is_unordered,
            progress=progress,
        )

        if state.num_pending_lines:
            with _explaining_errors(progress, "--overwrite" if is_overwriting else ""):
                if is_on_ray:
                    _finish_on_cluster(
                        work, settings, chosen, address=ray_address or ANY_CLUSTER, num_replicas=num_replicas
                    )
                else:
                    _finish_here(work, settings)
    num_lines, num_failed = progress.num_done_lines, progress.num_failed_lines
    click.echo(f"{num_lines} lines, {num_lines - num_failed} answered: {output}", err=True)
    if num_failed:
        click.echo(f"{num_failed} failed: {errors} (--retry-failed asks them again)", err=True)
        sys.exit(EXIT_LINES_FAILED)


def _explain_columns(table: CsvTable) -> None:
    click.echo(f"parameters from columns: {', '.join(table.parameters) or 'none'}", err=True)
    for column in table.columns:
        if column not in CompletionRequest.model_fields:
            for name in get_close_matches(column, CompletionRequest.model_fields, n=1):
                click.echo(f"the column {column} is only copied: did you mean {name}?", err=True)
    if "max_tokens" not in table.parameters:
        click.echo(f"no column max_tokens: each row gets up to {DEFAULT_MAX_TOKENS} tokens", err=True)


def _show_completed(state: ResumeState) -> None:
    """A line about the lines of earlier runs, if there are any."""
    num_completed = state.num_answered_lines + state.num_failed_lines
    if num_completed:
        text = f"{num_completed} of {num_completed + state.num_pending_lines} lines were complete already"
        click.echo(text if state.num_pending_lines else f"nothing to do: {text} (--overwrite starts over)", err=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The open files of one batch."""

    requests: InputFile
    answers: OutputFile
    failures: OutputFile
    completed: CompletedLines
    num_pending_lines: int
    is_ordered: bool
    progress: BatchProgress

    def writer(self) -> OrderedWriter:
        """A new writer for the pending lines."""
        return OrderedWriter(
            output=self.answers, errors=self.failures, is_ordered=self.is_ordered, on_written=self.progress.note
        )


@contextmanager
def _explaining_errors(progress: BatchProgress, restart: str) -> Iterator[None]:
    """Shows progress, and adds to an error how far the batch is. `restart`: as of `_kept`."""
    try:
        with progress:
            yield
    except (KeyboardInterrupt, DrainingError):
        raise BatchFileError(f"stopped; {_kept(progress, restart)}") from None
    except (BatchFileError, ClusterError, EngineFailedError) as error:
        raise BatchFileError(f"{error}; {_kept(progress, restart)}") from None


def _finish_here(work: Work, settings: Settings) -> None:
    # Imports the kernels, which this process doesn't need with --ray.
    from distilgpt2_api.local_service import open_service  # noqa: PLC0415 - the reason stands above

    async def finish() -> None:
        with CustomIds() as custom_ids:
            async with open_service(settings) as handle_line:
                run = Run(
                    work.requests,
                    writer=work.writer(),
                    completed=work.completed,
                    custom_ids=custom_ids,
                    handle_line=handle_line,
                )
                await run.finish(max_in_flight=BATCHES_IN_FLIGHT * settings.max_num_sequences)

    # After SIGTERM the service drains and calls the previous handler, if there is one. Draining ends the command.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    asyncio.run(finish())


def _finish_on_cluster(
    work: Work, settings: Settings, chosen: dict[str, object], *, address: str, num_replicas: int | None
) -> None:
    num_cores = settings.num_threads or 1
    overrides = {**chosen, "num_threads": num_cores}
    if settings.model is not None and is_folder(folder := Path(settings.model).expanduser()):
        overrides["model"] = folder.resolve()  # workers have another working directory

    def begin() -> tuple[Assignment, OrderedWriter]:
        assignment = Assignment(
            source=work.requests.path.resolve(),
            max_line_bytes=work.requests.max_line_bytes,
            output=work.answers.path.resolve(),
            num_output_bytes=work.answers.num_bytes,
            errors=work.failures.path.resolve(),
            num_errors_bytes=work.failures.num_bytes,
            max_lines=MAX_PASS_LINES,
            is_ordered=work.is_ordered,
            address=address,
            num_replicas=num_replicas,
            num_cores=num_cores,
            max_num_sequences=settings.max_num_sequences,
        )
        return assignment, work.writer()

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM stops it as Ctrl-C does
    finish_on_cluster(begin, num_pending_lines=work.num_pending_lines, environment=child_environment(overrides))


def _kept(progress: BatchProgress, restart: str) -> str:
    """`restart`: the option that starts over, or an empty string."""
    without = f" without {restart}" if restart else ""
    return f"{progress.num_done_lines} lines are complete: run the same command again{without} to continue"


def _check_cluster_options(*, is_on_ray: bool, ray_address: str | None, num_replicas: int | None) -> None:
    """Raises click.UsageError, SettingsError, ClusterError."""
    if not is_on_ray:
        where = click.get_current_context().get_parameter_source("ray_address")
        if num_replicas is not None or where is ParameterSource.COMMANDLINE:
            raise click.UsageError("--ray-address and --replicas are for --ray")
        return
    check_ray()
    if ray_address is not None and ray_address.startswith(RAY_CLIENT):
        raise ClusterError(
            f"{ray_address} is an address for Ray Client; run this on a node of the cluster and give its HOST:PORT"
        )


def _check_paths(source: Path, output: Path, errors: Path) -> None:
    """Raises BatchFileError."""
    if (source.suffix.lower() == CSV) != (output.suffix.lower() == CSV):
        raise BatchFileError(f"{source} and {output} must both be tables (.csv), or both JSON lines")
    if len({path.resolve() for path in (source, output, errors)}) < 3:
        raise BatchFileError("input, output and errors must be three different files")
