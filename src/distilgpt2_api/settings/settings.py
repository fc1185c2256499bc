"""The settings and their bounds. An entry point builds one `Settings` and passes values down; no layer below sees it.

This is plain pydantic: pydantic-settings adds 0.1 s to every start, and can't report where a value came from, read the
variables that platforms set, or reject unknown names.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, PrivateAttr, ValidationError

from distilgpt2_api.core.config import EngineConfig
from distilgpt2_api.core.errors import SettingsError
from distilgpt2_api.model.hub.store import ModelLocation, ModelStore
from distilgpt2_api.settings.access import AccessSettings
from distilgpt2_api.settings.batch import BatchSettings
from distilgpt2_api.settings.description import SettingDescription, describe_field
from distilgpt2_api.settings.host_resources import (
    choose_kv_cache_bytes,
    choose_max_connections,
    count_usable_cores,
    read_memory_limit_bytes,
)
from distilgpt2_api.settings.limits import LimitSettings
from distilgpt2_api.settings.listening import ListenSettings
from distilgpt2_api.settings.markers import is_secret
from distilgpt2_api.settings.sampling_defaults import GenerationSettings
from distilgpt2_api.settings.serving import ServingSettings
from distilgpt2_api.settings.sources import (
    SettingSource,
    nearest,
    read_environment,
    read_file,
    read_unchecked,
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
    """`console` on a terminal, else `json`."""
    JSON = "json"
    CONSOLE = "console"

    def is_json(self, *, is_terminal: bool) -> bool:
        """Whether log lines are JSON; `auto` depends on whether the log goes to a terminal."""
        return self is LogFormat.JSON or (self is LogFormat.AUTO and not is_terminal)


class Settings(BatchSettings, LimitSettings, AccessSettings, GenerationSettings, ListenSettings, ServingSettings):
    """All settings. `Settings()` reads file and environment; keyword arguments take precedence (command line).

    Raises SettingsError: one line that names the setting and the source of its value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    log_level: LogLevel = Field(default=LogLevel.INFO, description="Lowest level that is logged.")
    log_format: LogFormat = Field(
        default=LogFormat.AUTO, description="Format of log lines. `auto`: readable text on a terminal, else JSON."
    )
    traces: bool = Field(
        default=False,
        description="Send a span for each request by OTLP over HTTP, to the address in the standard variable "
        "`OTEL_EXPORTER_OTLP_ENDPOINT`. Needs the extra `otel` (`make install EXTRAS=otel`).",
    )
    home: Path = Field(
        default_factory=lambda: xdg_folder("XDG_DATA_HOME", ".local/share"),
        json_schema_extra={"default": "$XDG_DATA_HOME/distilgpt2-api or ~/.local/share/distilgpt2-api"},
        description="Folder for pulled models and, by default, the usage of API keys.",
    )
    cache_home: Path = Field(
        default_factory=lambda: xdg_folder("XDG_CACHE_HOME", ".cache"),
        json_schema_extra={"default": "$XDG_CACHE_HOME/distilgpt2-api or ~/.cache/distilgpt2-api"},
        description="Folder for compiled models. If it isn't writable, the service works without it.",
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
            values: dict[str, Any] = {name: layers[source][name] for name, source in sources.items()}
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_first_line(error, sources)) from None
        self._sources = sources

    def locate_model(self) -> ModelLocation:
        """Finds the model to serve. Raises ModelNotFoundError, which says what to do."""
        return ModelStore(self.home).locate(self.model)

    def model_label(self) -> str:
        """The names of the model to serve, as clients see them. Raises ModelNotFoundError."""
        return ", ".join(self.served_model_names) or self.locate_model().name

    def engine_config(self) -> EngineConfig:
        """The engine's configuration; `auto` is resolved to what this process may use."""
        memory_limit_bytes = read_memory_limit_bytes()
        kv_cache_bytes = self.kv_cache_bytes or choose_kv_cache_bytes(memory_limit_bytes) // self.num_workers
        return EngineConfig(
            precision=self.precision,
            kernels=self.kernels,
            num_threads=self.num_threads or max(1, count_usable_cores() // self.num_workers),
            kv_cache_bytes=int(kv_cache_bytes),
            memory_limit_bytes=memory_limit_bytes,
            max_num_sequences=self.max_num_sequences,
            max_step_tokens=self.max_step_tokens,
            max_batch_step_tokens=self.batch_step_tokens,
            max_draft_tokens=self.max_draft_tokens,
            is_prefix_caching=self.prefix_caching,
            prefix_cache_bytes=int(self.prefix_cache_bytes),
        )

    def usage_location(self) -> str:
        """The folder or URL of the usage store."""
        return self.usage_store or self.batch_store or str(self.home)

    def choose_max_connections(self) -> int:
        """`max_connections`; `auto` is resolved."""
        return self.max_connections or choose_max_connections(read_memory_limit_bytes() // self.num_workers)

    def has_json_logs(self, *, is_terminal: bool) -> bool:
        """Whether log lines are JSON; `auto` depends on whether the log goes to a terminal."""
        return self.log_format.is_json(is_terminal=is_terminal)

    def describe(self) -> list[SettingDescription]:
        """All settings, in field order."""
        return [
            describe_field(
                name, field, value=getattr(self, name), source=self._sources.get(name, SettingSource.DEFAULT)
            )
            for name, field in type(self).model_fields.items()
        ]


def read_log_format(chosen: str | None = None) -> LogFormat:
    """The log's format although other settings may be invalid: an error about them has it, too. `chosen`: an option."""
    try:
        return LogFormat(chosen or read_unchecked("log_format") or LogFormat.AUTO)
    except ValueError:
        return LogFormat.AUTO


def _first_line(error: ValidationError, sources: Mapping[str, SettingSource]) -> str:
    """The first pydantic error as one line, with the name under which the value was set."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    name = str(first["loc"][0])
    source = sources[name]
    if first["type"] == "extra_forbidden":
        return f"unknown setting {name} ({source}){nearest(name, Settings.model_fields)}"
    spelled = variable_in_use(name) if source is SettingSource.ENVIRONMENT else name
    if is_secret(Settings.model_fields[name]):
        return f"{spelled} ({source}): {message}"
    return f"{spelled} ({source}) can't be {first['input']!r}: {message[:1].lower()}{message[1:]}"
