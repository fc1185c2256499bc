"""The settings and their bounds. A door builds one `Settings` and hands narrow values down; nothing below sees it.

Plain pydantic and not pydantic-settings: that costs a tenth of a second at every start, and knows neither where a
value came from, nor the names that platforms set, nor which names are mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from distilgpt2_api.core.config import EngineConfig, Precision
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.model.resources import choose_kv_cache_bytes, count_usable_cores, read_memory_limit_bytes
from distilgpt2_api.model.store import ModelLocation, ModelStore
from distilgpt2_api.settings.description import SettingDescription, describe_field
from distilgpt2_api.settings.sources import (
    SettingSource,
    nearest,
    read_environment,
    read_file,
    variable_in_use,
    xdg_folder,
)


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    AUTO = "auto"
    """Console on a terminal, else JSON."""
    JSON = "json"
    CONSOLE = "console"


def _auto_to_none(value: object) -> object:
    return None if value == "auto" else value


AutoInt = Annotated[int | None, BeforeValidator(_auto_to_none)]
AutoBytes = Annotated[ByteSize | None, BeforeValidator(_auto_to_none)]


class Settings(BaseModel):
    """`Settings()` reads file and environment; keyword arguments stand for the command line and win.

    Raises SettingsError, one line that names the setting and where its value came from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(
        default=None,
        min_length=1,
        description="Name of a pulled model, or a folder. Unset: DistilGPT-2 if it has been pulled, else the bundled "
        "demo model `storyteller`.",
    )
    precision: Precision = Field(
        default=Precision.INT8,
        description="Weights and arithmetic of the forward pass. `f32` is the reference, the others are faster.",
    )
    host: str = Field(
        default="0.0.0.0",  # noqa: S104 - a container's service is reached from outside; `HOST` narrows it
        min_length=1,
        description="Address to listen on. `HOST` is honoured too.",
    )
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one. `PORT` is honoured too."
    )
    root_path: str = Field(
        default="",
        pattern=r"^(/.*[^/])?$",
        description="Path prefix that a proxy in front strips, for the links in /docs.",
    )
    chat_template: str | None = Field(
        default=None,
        min_length=1,
        description="A Jinja file that makes a prompt of a chat's messages, for /v1/chat/completions. Unset: the "
        "model's own, if it has one. `off`: none.",
    )
    num_threads: AutoInt = Field(
        default=None,
        ge=1,
        le=1024,
        description="Compute threads. `auto`: the cores that the cgroup's quota and the CPU affinity leave.",
    )
    kv_cache_bytes: AutoBytes = Field(
        default=None,
        ge=1 << 20,
        description="Memory of the KV cache. `auto`: 256MiB, or an eighth of the cgroup's memory limit if that is "
        "less. Units are understood: `512MiB`. One sequence of full length always fits, whatever this says.",
    )
    max_num_sequences: int = Field(default=64, ge=1, le=1024, description="Sequences that run at once; others wait.")
    max_step_tokens: int = Field(
        default=256,
        ge=32,
        le=65536,
        description="Tokens that one step computes at most. Smaller: smoother streams; larger: faster prefill.",
    )
    prefix_caching: bool = Field(
        default=True, description="Keep full blocks of finished prompts, so that a shared beginning is computed once."
    )
    prefix_cache_bytes: ByteSize = Field(
        default=ByteSize(32 << 20),
        ge=0,
        description="Memory that the KV cache may grow to only to remember finished prompts; beyond it the oldest is "
        "forgotten first. Running sequences may use all of `kv_cache_bytes`.",
    )
    max_waiting_requests: int = Field(
        default=1024, ge=1, le=1_000_000, description="Requests that wait; one more is refused with 429."
    )
    max_waiting_tokens: int = Field(
        default=1_048_576,
        ge=1,
        le=1_000_000_000,
        description="Prompt and completion tokens of the waiting requests; one more request is refused with 429.",
    )
    max_body_bytes: ByteSize = Field(
        default=ByteSize(2 << 20),
        ge=1024,
        le=1 << 30,
        description="Size of a request's body; a larger one is refused with 413.",
    )
    max_n: int = Field(default=16, ge=1, le=128, description="Completions of one prompt (`n`, `num_return_sequences`).")
    max_logprobs: int = Field(default=20, ge=0, le=100, description="Likeliest tokens listed beside the one drawn.")
    max_stop_sequences: int = Field(default=16, ge=1, le=1024, description="Stop sequences of one request.")
    timeout_s: float = Field(
        default=600.0, gt=0, le=86400, description="Time a request may take, queue included; then it is aborted."
    )
    drain_s: float = Field(
        default=4.0,
        ge=0,
        le=600,
        description="Time running requests get to finish after SIGTERM. Below the platform's own limit (Azure: 5 s).",
    )
    log_level: LogLevel = Field(default=LogLevel.INFO, description="Least severe level that is logged.")
    log_format: LogFormat = Field(
        default=LogFormat.AUTO, description="How lines are logged. `auto`: for people on a terminal, else JSON."
    )
    home: Path = Field(
        default_factory=lambda: xdg_folder("XDG_DATA_HOME", ".local/share"),
        json_schema_extra={"default": "$XDG_DATA_HOME/distilgpt2-api or ~/.local/share/distilgpt2-api"},
        description="Folder of the pulled models.",
    )
    cache_home: Path = Field(
        default_factory=lambda: xdg_folder("XDG_CACHE_HOME", ".cache"),
        json_schema_extra={"default": "$XDG_CACHE_HOME/distilgpt2-api or ~/.cache/distilgpt2-api"},
        description="Folder of compiled models. Where it can't be written the service works without it.",
    )

    _sources: dict[str, SettingSource] = PrivateAttr(default_factory=dict)

    def __init__(self, **command_line: Any) -> None:
        layers: dict[SettingSource, Mapping[str, object]] = {
            SettingSource.COMMAND_LINE: command_line,
            SettingSource.ENVIRONMENT: read_environment(type(self).model_fields),
            SettingSource.FILE: read_file(),
        }
        sources = {name: source for source in reversed(layers) for name in layers[source]}
        try:
            super().__init__(**{name: layers[source][name] for name, source in sources.items()})
        except ValidationError as error:
            raise SettingsError(_first_line(error, sources)) from None
        self._sources = sources

    @model_validator(mode="after")
    def _check_step(self) -> Self:
        if self.max_step_tokens < self.max_num_sequences:
            message = f"max_step_tokens ({self.max_step_tokens}) is below max_num_sequences ({self.max_num_sequences})"
            raise ValueError(message)
        return self

    def locate_model(self) -> ModelLocation:
        """The model to serve. Raises ModelNotFoundError, which says what to do."""
        return ModelStore(self.home).locate(self.model)

    def engine_config(self) -> EngineConfig:
        """How the engine is to run here: `auto` resolved to what this process may use."""
        kv_cache_bytes = self.kv_cache_bytes or choose_kv_cache_bytes(read_memory_limit_bytes())
        return EngineConfig(
            precision=self.precision,
            num_threads=self.num_threads or count_usable_cores(),
            kv_cache_bytes=int(kv_cache_bytes),
            max_num_sequences=self.max_num_sequences,
            max_step_tokens=self.max_step_tokens,
            is_prefix_caching=self.prefix_caching,
            prefix_cache_bytes=int(self.prefix_cache_bytes),
        )

    def has_json_logs(self, *, is_terminal: bool) -> bool:
        """What `log_format` means for a log that goes to a terminal, or not to one."""
        return self.log_format is LogFormat.JSON or (self.log_format is LogFormat.AUTO and not is_terminal)

    def describe(self) -> list[SettingDescription]:
        """All settings, in the order of their fields."""
        return [
            describe_field(
                name, field, value=getattr(self, name), source=self._sources.get(name, SettingSource.DEFAULT)
            )
            for name, field in type(self).model_fields.items()
        ]


def _first_line(error: ValidationError, sources: Mapping[str, SettingSource]) -> str:
    """The first of pydantic's errors in one line, in the words of whoever set the value."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    name = str(first["loc"][0])
    source = sources[name]
    if first["type"] == "extra_forbidden":
        return f"unknown setting {name} ({source}){nearest(name, Settings.model_fields)}"
    spelled = variable_in_use(name) if source is SettingSource.ENVIRONMENT else name
    return f"{spelled} ({source}) can't be {first['input']!r}: {message[:1].lower()}{message[1:]}"
