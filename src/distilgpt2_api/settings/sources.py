"""Where values of settings come from: the only reader of `os.environ`."""

from __future__ import annotations

import difflib
import os
import re
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

from distilgpt2_api.core.errors import SettingsError

ENV_PREFIX = "DISTILGPT2_"
CONFIG_FILE_VARIABLE = f"{ENV_PREFIX}CONFIG_FILE"
PLATFORM_VARIABLES = {"port": "PORT", "host": "HOST"}
"""Names that platforms set (Azure, Cloud Run, Heroku …); the prefixed name goes first."""

SERVICE_LINK = re.compile(rf"{ENV_PREFIX}(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
"""What Kubernetes sets in every pod beside a Service called `distilgpt2…`: no settings, and no mistakes either."""


class SettingSource(StrEnum):
    """Where a value came from, from the strongest to the weakest."""

    COMMAND_LINE = "command line"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


def env_name(name: str) -> str:
    return ENV_PREFIX + name.upper()


def read_environment(names: Iterable[str]) -> dict[str, object]:
    """Setting → text. An empty variable counts as unset: compose files and shells pass those on.

    Raises SettingsError for a prefixed name that is no setting.
    """
    variables = {env_name(name): name for name in names}
    for variable in os.environ:
        is_known = variable in variables or variable == CONFIG_FILE_VARIABLE or _is_service_link(variable)
        if variable.startswith(ENV_PREFIX) and not is_known:
            raise SettingsError(f"unknown setting {variable} in the environment{nearest(variable, variables)}")
    return {name: os.environ[used] for name in variables.values() if (used := variable_in_use(name)) is not None}


def is_set(name: str) -> bool:
    """Whether environment or file give `name` a value. What else is wrong with the file is for `Settings` to say."""
    try:
        return variable_in_use(name) is not None or name in read_file()
    except SettingsError:
        return False


def variable_in_use(name: str) -> str | None:
    """The environment variable that sets `name`, if any does."""
    prefixed = env_name(name)
    if os.environ.get(prefixed) and not _is_service_link(prefixed):
        return prefixed
    platform = PLATFORM_VARIABLES.get(name)
    return platform if platform and os.environ.get(platform) else None


def _is_service_link(variable: str) -> bool:
    # A Service called `distilgpt2` also makes DISTILGPT2_PORT=tcp://10.…
    is_address = variable.endswith("PORT") and os.environ[variable].startswith("tcp://")
    return is_address or SERVICE_LINK.fullmatch(variable) is not None


def export_to_environment(values: Mapping[str, object]) -> None:
    """Set them for this process and those that it starts: a `Settings()` made later finds them."""
    os.environ.update(_variables(values))


def child_environment(values: Mapping[str, object]) -> dict[str, str]:
    """This process's, and these settings: for one that it starts."""
    return os.environ | _variables(values)


def _variables(values: Mapping[str, object]) -> dict[str, str]:
    return {env_name(name): str(value) for name, value in values.items()}


def own_environment() -> dict[str, str]:
    """The variables that set something here, for processes on other machines."""
    return {name: value for name, value in os.environ.items() if name.startswith(ENV_PREFIX)}


def read_file() -> dict[str, object]:
    """Setting → value, from the TOML file that `CONFIG_FILE_VARIABLE` names, if it names one. Raises SettingsError."""
    path = os.environ.get(CONFIG_FILE_VARIABLE)
    if not path:
        return {}
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"can't read the settings file {path} ({CONFIG_FILE_VARIABLE}): {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} ({CONFIG_FILE_VARIABLE}) is not TOML: {error}") from None


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing."""
    matches = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def xdg_folder(variable: str, below_home: str) -> Path:
    """Our folder in one of the XDG specification's; a temporary one for users without a home (containers)."""
    if os.environ.get(variable):
        return Path(os.environ[variable]) / "distilgpt2-api"
    try:
        return Path.home() / below_home / "distilgpt2-api"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "distilgpt2-api" / below_home
