"""Settings for API keys and browser origins: who may use the service."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, Field, PlainValidator, model_validator

from distilgpt2_api.core.caller import ApiKey
from distilgpt2_api.settings.key_file import read_key_file
from distilgpt2_api.settings.key_list import KEY_NAME, KEY_NAME_RULE, parse_key_list, parse_metrics_key
from distilgpt2_api.settings.markers import SECRET
from distilgpt2_api.settings.text_lists import parse_texts

ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:\d{1,5})?|[a-z][a-z0-9+.-]*://\[[0-9a-f:]+\](:\d{1,5})?")
"""As browsers write it in the `Origin` header; `*` matches any."""


def _parse_origins(value: object) -> tuple[str, ...]:
    """Raises ValueError."""
    origins = parse_texts(value, "origins must be strings")
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise ValueError(f"an origin must be `*` or https://HOST[:PORT], in lower case without a path: {origin!r}")
    return origins


def _parse_names(value: object) -> tuple[str, ...]:
    """Raises ValueError."""
    names = parse_texts(value, "names must be strings")
    for name in names:
        if not KEY_NAME.fullmatch(name):
            raise ValueError(f"{name[:100]!r} can't be a key's name: {KEY_NAME_RULE}")
    return names


class AccessSettings(BaseModel, defer_build=True):
    """Part of `Settings`, whose validator alone is built."""

    api_keys: Annotated[tuple[ApiKey, ...], PlainValidator(parse_key_list), SECRET] = Field(
        default=(),
        description="API keys, comma-separated: `name:key`, or `key` (then named `key-1` and so on), each of at least "
        "16 characters. If a key or a key file is set, every route except the probes and the pages (`/ui`, "
        "`/docs`, `/redoc`) needs a key. [security.md](security.md) explains how to create keys.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="TOML file of hashed keys, written by `distilgpt2-api keys`. The service reloads it within seconds "
        "of a change. A file without keys rejects every request that needs one.",
    )
    operator_keys: Annotated[tuple[str, ...], PlainValidator(_parse_names)] = Field(
        default=(),
        description="Names of the API keys that may read the usage of every key, comma-separated. Other keys read only "
        "their own.",
    )
    usage_store: Annotated[str | None, SECRET] = Field(
        default=None,
        min_length=1,
        description="Where the usage of API keys is stored: a folder (SQLite), or a URL such as "
        "`postgresql://USER:PASSWORD@HOST/NAME`, which needs the extra `postgres` (`make install EXTRAS=postgres`). "
        "Unset: the location of `batch_store` or, if that is unset too, the folder `home`.",
    )
    metrics_api_key: Annotated[ApiKey | None, PlainValidator(parse_metrics_key), SECRET] = Field(
        default=None,
        description="API key for Prometheus: it is valid only for /metrics, and /metrics then accepts no other key.",
    )
    public_metrics: bool = Field(default=False, description="Serve /metrics without a key, even if keys are set.")
    public_docs: bool = Field(
        default=False,
        description="Serve /openapi.json without a key, even if keys are set. Otherwise /docs and /redoc, which show "
        "it, use the playground's key or ask for one.",
    )
    cors_origins: Annotated[tuple[str, ...], PlainValidator(_parse_origins)] = Field(
        default=(),
        description="Origins whose web pages may call the service from a browser, comma-separated: "
        "`https://app.example.com`; `*` allows any. These pages may send any header. Unset: none.",
    )

    def check_keys_file(self) -> None:
        """Lets a master process report a bad file in one line before it starts workers. Raises SettingsError."""
        if self.api_keys_file is not None:
            read_key_file(self.api_keys_file)

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.metrics_api_key is None:
            return self
        if self.public_metrics:
            raise ValueError("public_metrics and metrics_api_key exclude each other: set one of them")
        if self.metrics_api_key.digest in {key.digest for key in self.api_keys}:
            raise ValueError("metrics_api_key is also one of api_keys: use a separate key for /metrics")
        return self
