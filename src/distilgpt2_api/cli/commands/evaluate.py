"""`distilgpt2-api evaluate`: measures how well models predict a text, and how fast, in each precision."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import click

from distilgpt2_api.cli.line_scores import print_scores, read_passages
from distilgpt2_api.cli.options import PRECISIONS, format_option, num_threads_option, overrides_from
from distilgpt2_api.cli.terminal import progress_stream
from distilgpt2_api.core.config import EngineConfig, ModelConfig, Precision
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.engine.evaluation import Evaluation, Stream, evaluate, read_stream
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.runner import Runner
from distilgpt2_api.scheduling.blocks import num_blocks_for
from distilgpt2_api.settings import Settings
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

STEP_TOKENS = 512
HEADER = "precision    tokens  perplexity  bits/byte   ratio  tokens/s"
ROW = "{precision:<9}  {num_tokens:>8}  {perplexity:>10.3f}  {bits_per_byte:>9.4f}  {ratio:>6.4f}  {tokens_per_s:>8.0f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model to measure, and the text as its tokens."""

    name: str
    folder: Path
    config: ModelConfig
    stream: Stream


@click.command("evaluate")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--model",
    "models",
    metavar="NAME_OR_FOLDER",
    multiple=True,
    help="A pulled model's name, or a folder. Repeatable: compares the models.",
)
@click.option("--precision", "precisions", type=PRECISIONS, multiple=True, help="Repeatable. Default: all.")
@num_threads_option
@format_option
@click.option("--jsonl", "is_jsonl", is_flag=True, help="Score each line of FILE separately, with one model.")
@click.option("--field", metavar="NAME", help="With --jsonl: the field of each line that has the text. Default: text.")
def command(
    *,
    file: Path,
    models: tuple[str, ...],
    precisions: tuple[str, ...],
    num_threads: str | None,
    output_format: str,
    is_jsonl: bool,
    field: str | None,
) -> None:
    """Measure how well a model predicts the text in FILE: perplexity, bits per byte and tokens/s.

    Documents are separated by `<|endoftext|>` or by the model's own end-of-text token. Each token is scored once, in
    windows of the model's context length that overlap by half. Bits per byte is the bits of all tokens divided by the
    bytes of the documents. Unlike perplexity, it can be compared between models with different tokenizers. The ratio is
    a row's bits per byte divided by the first row's.

    With --jsonl, each line of FILE is a JSON text ("…"), an object with a text ({"text": "…"}; other fields are
    ignored) or a pair ({"context": "…", "continuation": "…"}), and each line of the output is the score of that text,
    or of that continuation, as POST /v1/score returns it. A text may be as long as the model's context.
    """
    if is_jsonl:
        _check_jsonl(models, precisions, output_format)
        [model, precision] = [values[0] if values else None for values in (models, precisions)]
        settings = Settings(**overrides_from(model=model, precision=precision, num_threads=num_threads))
        print_scores(read_passages(file, field=field), settings)
        return
    if field is not None:
        raise click.UsageError("--field needs --jsonl.")
    settings = Settings(**overrides_from(num_threads=num_threads))
    candidates = [_read_candidate(file, model) for model in models or [None]]
    _print_results(candidates, precisions or list(Precision), settings, is_json=output_format == "json")


def _check_jsonl(models: Sequence[str], precisions: Sequence[str], output_format: str) -> None:
    for option, values in (("--model", models), ("--precision", precisions)):
        if len(values) > 1:
            raise click.UsageError(f"--jsonl takes only one {option}.")
    if output_format == "json":
        raise click.UsageError("--jsonl prints JSON lines: leave out --format.")


def _read_candidate(file: Path, model: str | None) -> Candidate:
    """The model, or that of the settings."""
    location = Settings(**overrides_from(model=model)).locate_model()
    config = read_model_config(location.folder)
    stream = _read_file(file, Tokenizer.from_folder(location.folder, num_rows=config.vocab_size), config)
    return Candidate(name=model or location.name, folder=location.folder, config=config, stream=stream)


def _read_file(file: Path, tokenizer: Tokenizer, config: ModelConfig) -> Stream:
    try:
        stream = read_stream(file.read_text(encoding="utf-8"), tokenizer, config)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None
    if not stream.num_bytes:
        raise InvalidRequestError(f"{file} has no text")
    if len(stream.token_ids) < 2:
        raise InvalidRequestError(f"{file} has only one token: there is nothing to predict")
    return stream


def _print_results(
    candidates: Sequence[Candidate], precisions: Sequence[str], settings: Settings, *, is_json: bool
) -> None:
    """As one JSON object, or as a table, each row as soon as it is measured."""
    engine_config = settings.engine_config()
    width = max(len("model"), *(len(candidate.name) for candidate in candidates))
    if not is_json:
        click.echo(f"{candidates[0].stream.num_bytes} bytes of text, {engine_config.num_threads} threads")
        click.echo(f"{'model':<{width}}  {HEADER}")
    rows: list[dict[str, Any]] = []
    for candidate, precision in product(candidates, precisions):
        result = _evaluate(replace(engine_config, precision=Precision(precision)), candidate, settings.cache_home)
        first = rows[0]["bits_per_byte"] if rows else result.bits_per_byte
        row = {
            "model": candidate.name,
            "precision": precision,
            "num_bytes": candidate.stream.num_bytes,
            **asdict(result),
            "ratio": result.bits_per_byte / first if first else 1.0,
        }
        rows.append(row)
        if not is_json:
            click.echo(f"{candidate.name:<{width}}  {ROW.format(**row)}")
    if is_json:
        click.echo(json.dumps({"num_threads": engine_config.num_threads, "results": rows}, indent=1))


def _evaluate(engine_config: EngineConfig, candidate: Candidate, cache_home: Path) -> Evaluation:
    num_positions, stream = candidate.config.num_positions, candidate.stream
    runner = Runner.load(
        candidate.folder,
        engine_config,
        model_config=candidate.config,
        num_blocks=num_blocks_for(num_positions + 1),
        cache_folder=cache_home,
        report=lambda line: click.echo(line, err=True),
    )
    label = f"{candidate.name} {engine_config.precision}"
    try:
        with click.progressbar(length=len(stream.token_ids) - 1, label=label, file=progress_stream()) as bar:
            return evaluate(
                runner.run, stream, num_positions=num_positions, max_step_tokens=STEP_TOKENS, on_scored=bar.update
            )
    finally:
        runner.close()
