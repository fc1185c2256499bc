"""Generates docs/configuration.md, so that it lists every setting."""

from distilgpt2_api.settings.description import SettingDescription, describe_field
from distilgpt2_api.settings.settings import Settings
from distilgpt2_api.settings.sources import CONFIG_FILE_VARIABLE, SettingSource

PREFACE = f"""\
<!-- Generated: `distilgpt2-api config --markdown > docs/configuration.md` -->

# Configuration

The service runs without any configuration. Every setting has the same name in four places; the first one that sets it
wins:

1. the command line, if the command has that option (`distilgpt2-api serve --precision f32`),
2. the environment (`DISTILGPT2_PRECISION=f32`),
3. the TOML file named by `{CONFIG_FILE_VARIABLE}` (`precision = "f32"`),
4. the default.

An empty variable counts as unset. If a value is out of bounds, or a `DISTILGPT2_*` variable is not a setting, the
service does not start and prints one line that names it. `distilgpt2-api config` shows every setting with its value and
source.
"""


def configuration_page() -> str:
    """Markdown, the same on every machine."""
    fields = Settings.model_fields.items()
    settings = [
        describe_field(name, field, value=field.default, source=SettingSource.DEFAULT) for name, field in fields
    ]
    return "\n".join([PREFACE, *map(_section, settings)])


def _section(setting: SettingDescription) -> str:
    variables = " or ".join(f"`{variable}`" for variable in setting.env_names)
    default = f"`{setting.default}`" if setting.default else "none"
    lines = [f"## {setting.name}", "", setting.description, "", f"- environment: {variables}", f"- default: {default}"]
    if setting.bounds:
        lines.append(f"- values: {setting.bounds}")
    return "\n".join([*lines, ""])
