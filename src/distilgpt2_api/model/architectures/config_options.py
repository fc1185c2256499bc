"""Reads the options of a model folder's `config.json`; checks types and bounds, with errors in one line.

The end tokens come from `generation_config.json` if it names any, as in `transformers`.
`settings/sampling_defaults.py` reads its sampling parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilgpt2_api.core.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from distilgpt2_api.core.model_files import has_file, parse_json_object, read_model_file, safe_repr
from distilgpt2_api.core.model_folder import CONFIG_FILE, GENERATION_CONFIG_FILE

MAX_CONFIG_BYTES = 1_000_000
MAX_EOS_TOKENS = 64
"""Each one adds a candidate to every beam and step of a beam search."""
EOS = "eos_token_id"


@dataclass(frozen=True, slots=True)
class ConfigOptions:
    """The options of one config.json. Every method raises ModelFormatError, which names the file and the option."""

    path: Path
    values: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, name: str = CONFIG_FILE) -> ConfigOptions:
        """Raises ModelNotFoundError or ModelFormatError."""
        path = folder / name
        if not has_file(path):
            kind = "a model" if name == CONFIG_FILE else "an adapter"
            raise ModelNotFoundError(f"{path}: not found; {kind} folder needs {name}")
        return cls(path, parse_json_object(path, read_model_file(path, MAX_CONFIG_BYTES)))

    def with_aliases(self, aliases: Mapping[str, str]) -> ConfigOptions:
        """`aliases`: alias → name of the option."""
        values = dict(self.values)
        for alias, name in aliases.items():
            if alias in values and values.setdefault(name, values[alias]) != values[alias]:
                raise ModelFormatError(f"{self.path}: {alias} and {name} are the same option, but differ")
        return ConfigOptions(self.path, values)

    def refuse(self, unsupported: Mapping[str, str]) -> None:
        """Raises UnsupportedModelError if one of the options is set. `unsupported`: option → the feature it enables."""
        for name, what in unsupported.items():
            if self.values.get(name):
                raise UnsupportedModelError(f"{self.path}: {name} is set; not supported: {what}")

    def size(self, name: str, default: int, *, most: int) -> int:
        """A whole number from 1 to `most`."""
        value = self.values.get(name, default)
        # a bool is an int in Python
        if type(value) is not int or not 1 <= value <= most:
            raise ModelFormatError(
                f"{self.path}: {name} is {safe_repr(value)}; it must be a whole number from 1 to {most}"
            )
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise ModelFormatError(f"{self.path}: {name} is {safe_repr(value)}; it must be true or false")
        return value

    def fraction(self, name: str, default: float) -> float:
        """A number above 0 and below 1."""
        value = self.values.get(name, default)
        if type(value) not in (int, float) or not (math.isfinite(value) and 0.0 < value < 1.0):
            raise ModelFormatError(f"{self.path}: {name} is {safe_repr(value)}; it must be a number between 0 and 1")
        return float(value)

    def token_id(self, name: str, default: int, vocab_size: int) -> int | None:
        """None if the config has none, or one beyond the vocabulary, as in small models with GPT-2's config."""
        value = self.values.get(name, default)
        if value is None:
            return None
        if not _is_token_id(value):
            raise ModelFormatError(f"{self.path}: {name} is {safe_repr(value)}; it must be a token id or null")
        return int(value) if value < vocab_size else None

    def eos_token_ids(self, default: int, vocab_size: int) -> tuple[int, ...]:
        """In the file's order, without those beyond the vocabulary."""
        path = self.path.with_name(GENERATION_CONFIG_FILE)
        if has_file(path):
            generation = parse_json_object(path, read_model_file(path, MAX_CONFIG_BYTES))
            if ids := _eos_token_ids(path, generation.get(EOS), vocab_size):
                return ids
        return _eos_token_ids(self.path, self.values.get(EOS, default), vocab_size)


def _eos_token_ids(path: Path, value: Any, vocab_size: int) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(map(_is_token_id, ids)):
        raise ModelFormatError(f"{path}: {EOS} is {safe_repr(value)}; it must be a token id, a list of them or null")
    if len(ids) > MAX_EOS_TOKENS:
        raise ModelFormatError(f"{path}: {EOS} has {len(ids)} tokens; at most {MAX_EOS_TOKENS} are supported")
    return tuple(dict.fromkeys(token_id for token_id in ids if token_id < vocab_size))


def _is_token_id(value: Any) -> bool:
    """A bool is an int in Python, but not a token id."""
    return type(value) is int and value >= 0
