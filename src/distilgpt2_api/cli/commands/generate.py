"""`distilgpt2-api generate`: completes a prompt in the terminal, without a server."""

import random
import sys
from functools import partial

import click

from distilgpt2_api.cli.local_engine import open_engine
from distilgpt2_api.cli.options import (
    model_option,
    num_threads_option,
    overrides_from,
    plain_parameter_options,
    precision_option,
)
from distilgpt2_api.core.params import SamplingParams
from distilgpt2_api.core.request import GenerationRequest
from distilgpt2_api.core.seeds import NO_SEED, choose_seed
from distilgpt2_api.engine.engine import Engine
from distilgpt2_api.engine.sync import complete, encode_prompt, run_request
from distilgpt2_api.settings import Settings


def _check_stops(context: click.Context, option: click.Parameter, stops: tuple[str, ...]) -> tuple[str, ...]:
    """Option callback: an empty stop text has no meaning."""
    if not all(stops):
        raise click.BadParameter("must not be empty.", context, option)
    return stops


@click.command("generate")
@click.argument("prompt")
@model_option
@precision_option
@num_threads_option
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=100, show_default=True, help="Most new tokens.")
@click.option("--n", "num_sequences", type=click.IntRange(1, 128), default=1, show_default=True, help="Completions.")
@click.option("--seed", type=click.IntRange(min=NO_SEED), help="Same seed, same text. Default: -1, a random seed.")
@plain_parameter_options(top_k=50)
@click.option(
    "--stop",
    multiple=True,
    metavar="TEXT",
    callback=_check_stops,
    help="Stop before this text. Repeatable.",
)
def command(
    *,
    prompt: str,
    model: str | None,
    precision: str | None,
    num_threads: str | None,
    max_new_tokens: int,
    num_sequences: int,
    seed: int | None,
    **sampling: float | tuple[str, ...],
) -> None:
    """Complete PROMPT with the model and print the text as it is generated. If PROMPT is -, read standard input."""
    settings = Settings(**overrides_from(model=model, precision=precision, num_threads=num_threads))
    text = sys.stdin.read() if prompt == "-" else prompt
    with open_engine(settings) as engine:
        request = GenerationRequest(
            request_id="generate",
            prompt_token_ids=encode_prompt(engine, text),
            params=SamplingParams(
                max_tokens=max_new_tokens,
                seed=choose_seed(seed, partial(random.getrandbits, 63)),
                **sampling,  # type: ignore[arg-type]  # named and typed as the options are
            ),
            num_sequences=num_sequences,
            is_streamed=num_sequences == 1,
        )
        _show(engine, request, text)


def _show(engine: Engine, request: GenerationRequest, prompt: str) -> None:
    """Print one completion while it is generated; several one after another, each under a header line."""
    if request.num_sequences == 1:
        _write(prompt)
        for delta in run_request(engine, request):
            _write(delta.text)
        _write("\n")
        return
    texts = complete(engine, request, prompt)
    for index, text in enumerate(texts, start=1):
        _write(f"--- {index} of {len(texts)}\n{text}\n")


def _write(text: str) -> None:
    """Print `text`, with `?` for characters that the terminal can't encode."""
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(text.encode(encoding, errors="replace").decode(encoding), nl=False)
