"""Reads settings from the environment and the file. Only this module reads `os.environ`."""

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
"""Variables that platforms set (Azure, Cloud Run, Heroku …); the prefixed name takes precedence."""

SERVICE_LINK = re.compile(rf"{ENV_PREFIX}(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
"""Variables that Kubernetes sets in every pod if a Service is called `distilgpt2…`: ignored, and not an error."""
REMOVED_SETTINGS = {"metrics_folder": "every worker serves its own metrics; leave it out (docs/metrics.md)"}


class SettingSource(StrEnum):
    """The source of a value, highest precedence first."""

    COMMAND_LINE = "command line"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


def env_name(name: str) -> str:
    return ENV_PREFIX + name.upper()


def read_environment(names: Iterable[str]) -> dict[str, object]:
    """Maps setting names to text. An empty variable counts as unset, because compose files and shells pass those on.

    Raises SettingsError for a prefixed name that is not a setting.
    """
    variables = {env_name(name): name for name in names}
    for variable in os.environ:
        is_known = variable in variables or variable == CONFIG_FILE_VARIABLE or _is_service_link(variable)
        if variable.startswith(ENV_PREFIX) and not is_known:
            raise SettingsError(f"unknown setting {variable} in the environment{nearest(variable, variables)}")
    return {name: os.environ[used] for name in variables.values() if (used := variable_in_use(name)) is not None}


def variable_in_use(name: str) -> str | None:
    """The environment variable that sets `name`, if there is one."""
    prefixed = env_name(name)
    if os.environ.get(prefixed) and not _is_service_link(prefixed):
        return prefixed
    platform = PLATFORM_VARIABLES.get(name)
    return platform if platform and os.environ.get(platform) else None


def _is_service_link(variable: str) -> bool:
    # A Service called `distilgpt2` also sets DISTILGPT2_PORT=tcp://10.…
    is_address = variable.endswith("PORT") and os.environ[variable].startswith("tcp://")
    return is_address or SERVICE_LINK.fullmatch(variable) is not None


def export_to_environment(values: Mapping[str, object]) -> None:
    """Sets them for this process and its children, so that a later `Settings()` reads them."""
    os.environ.update(_variables(values))


def keep_blas_single_threaded() -> None:
    """Keeps NumPy's BLAS from starting threads, unless the operator's environment says otherwise.

    Call it before NumPy is imported: serving multiplies no matrices in NumPy, and an import waits for the threads.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def child_environment(values: Mapping[str, object]) -> dict[str, str]:
    """This process's environment with these settings added, for a child process."""
    return os.environ | _variables(values)


def _variables(values: Mapping[str, object]) -> dict[str, str]:
    return {env_name(name): str(value) for name, value in values.items()}


def own_environment() -> dict[str, str]:
    """This process's `DISTILGPT2_*` variables, for processes on other machines."""
    return {name: value for name, value in os.environ.items() if name.startswith(ENV_PREFIX)}


def read_file() -> dict[str, object]:
    """Maps setting names to values from the TOML file in `CONFIG_FILE_VARIABLE`, if set. Raises SettingsError."""
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


def read_socket_activation(process_id: int) -> int:
    """The number of sockets that systemd passes to this process, after sd_listen_fds(3). Raises SettingsError."""
    if os.environ.get("LISTEN_PID") != str(process_id):
        return 0
    number = os.environ.get("LISTEN_FDS", "")
    if not number.isdecimal():
        raise SettingsError(f"LISTEN_FDS (environment) can't be {number!r}: it must be a number of sockets")
    return int(number)


def read_unchecked(name: str) -> str:
    """The setting's value in the environment or the file; empty if it has none there, or the file can't be read."""
    if (variable := variable_in_use(name)) is not None:
        return os.environ[variable]
    try:
        return str(read_file().get(name, ""))
    except SettingsError:
        return ""


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean X?` for the closest name, why a setting was removed, or an empty string."""
    if reason := REMOVED_SETTINGS.get(name.removeprefix(ENV_PREFIX).lower()):
        return f": it was removed, because {reason}"
    matches = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def xdg_folder(variable: str, below_home: str) -> Path:
    """Our folder in an XDG base directory; a temporary folder for a user without a home (containers)."""
    if os.environ.get(variable):
        return Path(os.environ[variable]) / "distilgpt2-api"
    try:
        return Path.home() / below_home / "distilgpt2-api"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "distilgpt2-api" / below_home
