"""`distilgpt2-api pull`: fetches a model; the only command that connects to a network."""

from pathlib import Path

import click

from distilgpt2_api.cli.options import overrides_from, precision_option
from distilgpt2_api.core.errors import ModelError, SettingsError
from distilgpt2_api.core.model_files import has_file
from distilgpt2_api.core.model_folder import CONFIG_FILE
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.hub.store import ModelLocation, ModelStore
from distilgpt2_api.model.weights.compiled_cache import load_weights
from distilgpt2_api.settings import Settings


@click.command("pull")
@click.argument("name")
@click.option("--revision", metavar="REVISION", help="Branch, tag or commit. Default: main.")
@click.option(
    "--if-missing", "if_missing", is_flag=True, help="Do nothing if NAME is here: pulled, bundled or a folder."
)
@precision_option
def command(*, name: str, revision: str | None, if_missing: bool, precision: str | None) -> None:
    """Fetch the model NAME (`distilgpt2`, `openai-community/gpt2`) from the Hugging Face hub.

    Fetches only the files that serving needs and checks them against the hub's hashes. An interrupted pull resumes
    where it stopped. HF_ENDPOINT sets another hub; HF_TOKEN is your token for private models. The weights are then
    prepared for --precision (default: the precision that will be served), so that the first start is fast.
    """
    if if_missing and revision is not None:
        raise click.UsageError("--if-missing does not check the revision: leave out --revision or --if-missing")
    settings = Settings(**overrides_from(precision=precision))
    if if_missing and (here := ModelStore(settings.home).find(name)) is not None:
        _say(f"{here.name} is in {here.folder}")
        return
    location = _pull(settings, name, revision or "main")
    weights = load_weights(
        location.folder,
        read_model_config(location.folder),
        precision=settings.precision,
        cache_folder=settings.cache_home,
        report=_say,
    )
    if weights.file is not None:  # else they could not be stored, and load_weights has said so
        _say(f"prepared for {settings.precision} in {settings.cache_home}")
    _say(f"{location.name} is in {location.folder}")
    if not if_missing:
        click.echo(f"serve it: distilgpt2-api serve --model {location.name}")


def _pull(settings: Settings, name: str, revision: str) -> ModelLocation:
    try:
        # An optional extra: everything else works without it.
        from distilgpt2_api.model.hub.pull import pull_model  # noqa: PLC0415 - the reason stands above
    except ModuleNotFoundError:
        remedy = SettingsError.missing_extra("pull", "hub")
        raise SettingsError(f"{remedy}; or copy the model's folder to this machine and pass it as --model") from None
    try:
        return pull_model(ModelStore(settings.home), name, revision=revision, report=_say)
    except ModelError as error:
        if has_file(Path(name, CONFIG_FILE)):
            raise ModelError(f"{error}; the folder {name} needs no pull: --model {name}") from None
        raise


def _say(line: str) -> None:
    click.echo(line, err=True)
