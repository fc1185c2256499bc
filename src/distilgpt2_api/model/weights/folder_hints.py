"""Recognises folders that lack a model's files, such as training tools and hubs leave, and says what to do."""

import re
from pathlib import Path

from distilgpt2_api.core.model_files import safe_name

ADAPTER_FILES = frozenset({"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"})
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
TRAINER_FILE = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|dataloader)\b.*|\w*_state_\d+.*"
)
"""Files of `Trainer` and Accelerate for resuming a training: pickles, but not weights."""
FOREIGN_WEIGHTS = re.compile(r".+\.(h5|msgpack|ot|gguf|onnx|ckpt\.(index|meta|data-.+))")
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def pickled_weights(names: list[str]) -> list[str]:
    """The names that may be of pickled weights, sorted."""
    return sorted(name for name in names if Path(name).suffix in PICKLE_SUFFIXES and not TRAINER_FILE.match(name))


def hint_at(names: list[str]) -> str:
    """A hint at the kind of a folder with these files, and at what to do; begins with a colon. Empty if unknown."""
    if ADAPTER_FILES.intersection(names):
        return ": it is a PEFT adapter; merge it: distilgpt2-api convert BASE_MODEL NEW_FOLDER --adapter THIS_FOLDER"
    if "snapshots" in names:
        return ": it is a repository of the hub's cache; give the folder below snapshots/"
    if checkpoints := sorted(int(found[1]) for name in names if (found := CHECKPOINT.fullmatch(name))):
        return f": it has the checkpoints of a training run; give one of them, such as checkpoint-{checkpoints[-1]}"
    foreign = min((name for name in names if FOREIGN_WEIGHTS.fullmatch(name)), default=None)
    if foreign is not None:
        return f": {safe_name(foreign)} has an unsupported format; convert the model to safetensors"
    others = [name for name in names if name.endswith(".safetensors") and not name.startswith("compiled.")]
    if len(others) == 1:
        return f"; if {safe_name(others[0])} has all the weights, rename it to model.safetensors"
    return ""
