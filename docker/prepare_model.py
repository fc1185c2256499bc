"""Compiles the image's model from the build argument MODEL: a folder of the build context, or a name on the hub.

    PYTHONPATH=src python docker/prepare_model.py --model MODEL --copied FOLDER --precision int8 --target ROOT

`FOLDER` has the files of the folder MODEL; it is empty if the build context has no such folder. The result is
ROOT/models/NAME: the compiled model without its checkpoint. ROOT/models/model is a link to it, and ROOT/model to that,
so that the path is always the same and the model keeps its name. `none` makes the second link and an empty ROOT/models.

The two links make a mount at ROOT/models work both with the whole root of a model image and with its folder models.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from distilgpt2_api.core.config import Precision
from distilgpt2_api.core.errors import Distilgpt2ApiError, ModelNotFoundError
from distilgpt2_api.core.model_folder import CONFIG_FILE
from distilgpt2_api.model.architectures.registry import read_model_config
from distilgpt2_api.model.compilation import compile_model
from distilgpt2_api.model.hub.store import NAME_PATTERN, ModelStore
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

NO_MODEL = "none"
LINK = "model"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--copied", type=Path, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--home", type=Path, default=Path("/var/cache/distilgpt2-api"))
    arguments = parser.parse_args()
    models = arguments.target / "models"
    models.mkdir(parents=True)
    (arguments.target / LINK).symlink_to(f"models/{LINK}")
    if arguments.model == NO_MODEL and not any(arguments.copied.iterdir()):
        print("no model")
        return
    try:
        precision = parse_precision(arguments.precision)
        name, folder = find_model(arguments.model, arguments.copied, arguments.home)
        target = models / name
        compile_model(folder, target, precision)
        # A model without a tokenizer fails the build, not the image's first start.
        Tokenizer.from_folder(target, num_rows=read_model_config(target).vocab_size)
    except Distilgpt2ApiError as error:
        message = str(error).replace(f"{arguments.copied}", arguments.model)
        sys.exit(f"error: --build-arg MODEL={arguments.model}: {message}")
    if name != LINK:
        (models / LINK).symlink_to(name)
    num_bytes = sum(path.stat().st_size for path in target.iterdir())
    print(f"model {name}, {precision}, {num_bytes / 1e6:.1f} MB")


def parse_precision(text: str) -> Precision:
    try:
        return Precision(text)
    except ValueError:
        sys.exit(f"error: --build-arg PRECISION={text}: must be one of {', '.join(Precision)}")


def find_model(model: str, copied: Path, home: Path) -> tuple[str, Path]:
    """Find the model's name and folder. Raises ModelError."""
    if not model:
        raise ModelNotFoundError("it is empty; leave the argument out for the demo model")
    if (copied / CONFIG_FILE).is_file():
        return Path(model).name or "model", copied
    if any(copied.iterdir()):
        raise ModelNotFoundError("the folder is not a model: it has no config.json")
    if NAME_PATTERN.fullmatch(model) is None:
        raise ModelNotFoundError("no such folder in the build context (or .dockerignore leaves it out)")
    from distilgpt2_api.model.hub.pull import pull_model  # noqa: PLC0415 - a folder needs no hub client

    location = pull_model(ModelStore(home), model, report=print)
    return location.name, location.folder


if __name__ == "__main__":
    main()
