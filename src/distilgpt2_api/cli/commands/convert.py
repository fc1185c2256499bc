"""`distilgpt2-api convert`: makes a model folder of a PyTorch checkpoint, or of a base model and an adapter."""

from pathlib import Path

import click

from distilgpt2_api.core.errors import ModelError
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.conversion import convert_model
from distilgpt2_api.settings import Settings
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer


@click.command("convert")
@click.argument("source", metavar="MODEL")
@click.argument("target", metavar="NEW_FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--adapter",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A LoRA or DoRA adapter of PEFT to merge into the model.",
)
def command(*, source: str, target: Path, adapter: Path | None) -> None:
    """Write MODEL to NEW_FOLDER as safetensors, which `serve` reads. Needs no PyTorch.

    MODEL is a pulled model's name, a folder with config.json and weights (model.safetensors, pytorch_model.bin, shards
    with an index, or the only other pickle), or one file of weights in such a folder (ckpt.pt). A pickle is read for
    its tensors; it is never run, and one that has more than tensors and plain values is refused. Each tensor keeps its
    type, and the files beside the weights are copied.

    --adapter merges an adapter in a folder with adapter_config.json and adapter_model.safetensors or adapter_model.bin.
    """
    file = Path(source)
    if file.is_file():
        folder, weights = file.parent, file
    else:
        folder, weights = Settings(model=source).locate_model().folder, None
    num_tensors = convert_model(folder, target, weights=weights, adapter=adapter)
    click.echo(f"{num_tensors} tensors are in {target}", err=True)
    try:
        Tokenizer.from_folder(target, num_rows=read_model_config(target).vocab_size)
    except ModelError as error:
        click.echo(f"it can't be served yet: {error}", err=True)
    else:
        click.echo(f"serve it: distilgpt2-api serve --model {target}")
