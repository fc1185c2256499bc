"""Reads a service's sampling defaults: the operator's, and those in the model's generation_config.json."""

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, PlainValidator

from distilgpt2_api.core.errors import ModelFormatError
from distilgpt2_api.core.model_files import has_file, parse_json_object, read_model_file
from distilgpt2_api.core.model_folder import GENERATION_CONFIG_FILE
from distilgpt2_api.core.params import PLAIN_PARAMETERS
from distilgpt2_api.core.sampling_defaults import MAX_TOKENS, NO_DEFAULTS, SamplingDefaults

MAX_CONFIG_BYTES = 1_000_000


class GenerationConfig(StrEnum):
    OFF = "off"
    AUTO = "auto"
    """The model's, as vLLM calls it."""


def _parse_overrides(value: object) -> SamplingDefaults:
    """Parses a JSON object, or a TOML table. Raises ValueError."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError('it must be a JSON object, such as {"temperature": 0.8}') from None
    if isinstance(value, SamplingDefaults):
        return value
    if not isinstance(value, Mapping):
        raise ValueError('it must be an object, such as {"temperature": 0.8}')  # noqa: TRY004 - pydantic takes ValueError
    return SamplingDefaults.parse(value)


class GenerationSettings(BaseModel):
    """Part of `Settings`."""

    generation_config: GenerationConfig = Field(
        default=GenerationConfig.OFF,
        description=f"`auto`: the sampling parameters in the model's `{GENERATION_CONFIG_FILE}` are the defaults of "
        "requests that leave them out, as in vLLM. `off`: each protocol's own defaults apply. The end tokens are read "
        "from the file either way.",
    )
    override_generation_config: Annotated[SamplingDefaults, PlainValidator(_parse_overrides)] = Field(
        default=NO_DEFAULTS,
        description="Defaults of sampling parameters for requests that leave them out, in every protocol, as a JSON "
        'object or a TOML table: `{"temperature": 0.8, "top_k": 50, "max_new_tokens": 128}`. They take precedence over '
        "`generation_config`. Allowed are `max_new_tokens` and all [parameters](api.md#parameters) that are a number "
        "or a truth value, except `n`, `seed` and those of beam search.",
    )

    def sampling_defaults(self, folder: Path) -> SamplingDefaults:
        """The defaults of a service with the model in `folder`. Raises ModelFormatError."""
        if self.generation_config is GenerationConfig.OFF:
            return self.override_generation_config
        return self.override_generation_config.over(read_generation_config(folder))


def read_generation_config(folder: Path) -> SamplingDefaults:
    """The sampling parameters in the model's file, which need not exist. Other options, and nulls, are ignored.

    Raises ModelFormatError, which names the file and the option.
    """
    path = folder / GENERATION_CONFIG_FILE
    if not has_file(path):
        return NO_DEFAULTS
    options = parse_json_object(path, read_model_file(path, MAX_CONFIG_BYTES))
    names = {MAX_TOKENS, *PLAIN_PARAMETERS}
    try:
        return SamplingDefaults.parse(
            {name: value for name, value in options.items() if name in names and value is not None}
        )
    except ValueError as error:
        raise ModelFormatError(
            f"{path}: {error}; the setting generation_config=off ignores the file's defaults"
        ) from None
