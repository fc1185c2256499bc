"""Settings of who may use the service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, Field, PlainValidator, model_validator

from distilgpt2_api.core.api_key import ApiKey
from distilgpt2_api.settings.key_file import read_key_file
from distilgpt2_api.settings.key_list import parse_key_list, parse_metrics_key
from distilgpt2_api.settings.secret import SECRET

ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:\d{1,5})?|[a-z][a-z0-9+.-]*://\[[0-9a-f:]+\](:\d{1,5})?")
"""As browsers write it in `Origin`; `*` is any."""


def _parse_origins(value: object) -> tuple[str, ...]:
    """Comma-separated text, or TOML's list of texts."""
    if isinstance(value, str):
        value = [origin for part in value.split(",") if (origin := part.strip())]
    if not isinstance(value, list | tuple):
        raise ValueError("origins are texts")  # noqa: TRY004 - pydantic takes ValueError
    for origin in value:
        if not isinstance(origin, str) or not ORIGIN.fullmatch(origin):
            raise ValueError(f"an origin is `*` or https://HOST[:PORT], in lower case and without a path: {origin!r}")
    return tuple(value)


class AccessSettings(BaseModel):
    """Part of `Settings`."""

    api_keys: Annotated[tuple[ApiKey, ...], PlainValidator(parse_key_list), SECRET] = Field(
        default=(),
        description="API keys, comma-separated: `name:key`, or `key` (named `key-1` and so on), of 16 characters or "
        "more. Once a key or a file of keys is set, every route needs one but the probes and the playground's page. "
        "[security.md](security.md) says how to make them.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="A TOML file of hashed keys, which `distilgpt2-api keys` writes; read anew within seconds of every "
        "change. Without a key in it nobody gets in.",
    )
    metrics_api_key: Annotated[ApiKey | None, PlainValidator(parse_metrics_key), SECRET] = Field(
        default=None,
        description="A key for /metrics alone, for Prometheus: it opens nothing else, and no other key opens /metrics.",
    )
    public_metrics: bool = Field(default=False, description="Whether /metrics is open to everybody, whatever keys are.")
    public_docs: bool = Field(
        default=False,
        description="Whether /docs, /redoc and /openapi.json are open to everybody, whatever keys are: a browser can't "
        "send one when it opens a page.",
    )
    cors_origins: Annotated[tuple[str, ...], PlainValidator(_parse_origins)] = Field(
        default=(),
        description="Origins whose pages may use the service from a browser, comma-separated: "
        "`https://app.example.com`; `*` is any. Such pages may send any header. Unset: none.",
    )

    def check_keys_file(self) -> None:
        """For a master process: its worker would find out later, and less briefly. Raises SettingsError."""
        if self.api_keys_file is not None:
            read_key_file(self.api_keys_file)

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.metrics_api_key is None:
            return self
        if self.public_metrics:
            raise ValueError("public_metrics needs no metrics_api_key")
        if self.metrics_api_key.digest in {key.digest for key in self.api_keys}:
            raise ValueError("metrics_api_key is one of api_keys: take another, which opens /metrics alone")
        return self
