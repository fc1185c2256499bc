"""`distilgpt2-api pull`: the one command that talks to a network."""

from __future__ import annotations

import click

from distilgpt2_api.cli.options import given, precision_option
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.hub.store import ModelLocation, ModelStore
from distilgpt2_api.model.weights.compiled_cache import load_weights
from distilgpt2_api.settings import Settings


@click.command("pull")
@click.argument("name")
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit.")
@precision_option
def command(*, name: str, revision: str, precision: str | None) -> None:
    """Fetch the model NAME (`distilgpt2`, `openai-community/gpt2`) from the Hugging Face hub.

    Only the files that serving needs, checked against the hub's hashes; an interrupted pull goes on where it stopped.
    HF_ENDPOINT names another hub, HF_TOKEN is your token for private models. Then the weights are prepared for
    --precision (default: the one that will be served), so that the first start is fast.
    """
    settings = Settings(**given(precision=precision))
    location = _pull(settings, name, revision)
    load_weights(
        location.folder,
        read_model_config(location.folder),
        precision=settings.precision,
        cache_folder=settings.cache_home,
        report=_say,
    )
    _say(f"prepared for {settings.precision} in {settings.cache_home}")
    _say(f"{location.name} is in {location.folder}")
    click.echo(f"serve it: distilgpt2-api serve --model {location.name}")


def _pull(settings: Settings, name: str, revision: str) -> ModelLocation:
    try:
        # An optional extra: everything else works without it.
        from distilgpt2_api.model.hub.pull import pull_model  # noqa: PLC0415 - the reason stands above
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"pull needs {error.name}, which is not installed: pip install huggingface-hub (or copy the model's "
            "folder here and give it as --model)"
        ) from None
    return pull_model(ModelStore(settings.home), name, revision=revision, report=_say)


def _say(line: str) -> None:
    click.echo(line, err=True)
