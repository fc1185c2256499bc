"""`distilgpt2-api evaluate`: measures quality and speed of each precision on a given model and text."""

import sys
from dataclasses import replace
from pathlib import Path

import click

from distilgpt2_api.cli.line_scores import print_scores, read_passages
from distilgpt2_api.cli.options import PRECISIONS, model_option, num_threads_option, overrides_from
from distilgpt2_api.core.config import EngineConfig, ModelConfig, Precision
from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.engine.evaluation import Evaluation, Stream, evaluate, read_stream
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.runner import Runner
from distilgpt2_api.scheduling.blocks import num_blocks_for
from distilgpt2_api.settings import Settings
from distilgpt2_api.text.tokenizer import Tokenizer

STEP_TOKENS = 512


@click.command("evaluate")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@model_option
@click.option("--precision", "precisions", type=PRECISIONS, multiple=True, help="Repeatable. Default: all.")
@num_threads_option
@click.option("--jsonl", "is_jsonl", is_flag=True, help="Score each line of FILE separately, with one precision.")
def command(*, file: Path, precisions: tuple[str, ...], is_jsonl: bool, **options: str | None) -> None:
    """Measure how well the model predicts the text in FILE: perplexity, bits per byte and tokens/s.

    Documents are separated by `<|endoftext|>` or by the model's own end-of-text token. Each token is scored once, in
    windows of the model's context length that overlap by half. Bits per byte is the bits of all tokens divided by the
    bytes of the documents.

    With --jsonl, each line of FILE is a JSON text or pair ("…", {"text": "…"}, or {"context": "…", "continuation":
    "…"}), and each line of the output is the score of that text, or of that continuation, as POST /v1/score returns
    it. A text may be as long as the model's context.
    """
    if is_jsonl and len(precisions) > 1:
        raise click.UsageError("--jsonl takes only one --precision.")
    settings = Settings(**overrides_from(**options, precision=precisions[0] if is_jsonl and precisions else None))
    if is_jsonl:
        print_scores(read_passages(file), settings)
        return
    model = settings.locate_model()
    engine_config = settings.engine_config()
    num_threads = engine_config.num_threads
    config = read_model_config(model.folder)
    stream = _read_file(file, Tokenizer.from_folder(model.folder, num_rows=config.vocab_size), config)
    click.echo(f"{model.name}: {len(stream.token_ids)} tokens of {stream.num_bytes} bytes, {num_threads} threads")
    click.echo(f"{'precision':<10}{'perplexity':>12}{'bits/byte':>11}{'tokens/s':>10}")
    for precision in precisions or list(Precision):
        engine_config = replace(engine_config, precision=Precision(precision))
        result = _evaluate(engine_config, model.folder, config, stream, settings.cache_home)
        click.echo(
            f"{precision:<10}{result.perplexity:>12.3f}{result.bits_per_byte:>11.4f}{result.tokens_per_s:>10.0f}"
        )


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


def _evaluate(
    engine_config: EngineConfig, folder: Path, config: ModelConfig, stream: Stream, cache_home: Path
) -> Evaluation:
    runner = Runner.load(
        folder,
        engine_config,
        model_config=config,
        num_blocks=num_blocks_for(config.num_positions + 1),
        cache_folder=cache_home,
        report=lambda line: click.echo(line, err=True),
    )
    label = str(engine_config.precision)
    try:
        with click.progressbar(length=len(stream.token_ids) - 1, label=label, file=sys.stderr) as bar:
            return evaluate(
                runner.run,
                stream,
                num_positions=config.num_positions,
                max_step_tokens=STEP_TOKENS,
                on_scored=bar.update,
            )
    finally:
        runner.close()
