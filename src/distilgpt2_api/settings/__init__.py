"""Every setting of the service, once: command line over environment over file over default."""

from distilgpt2_api.settings.description import SettingDescription
from distilgpt2_api.settings.settings import EXIT_SETTINGS, LogFormat, LogLevel, Settings
from distilgpt2_api.settings.sources import ENV_PREFIX, SettingSource, export_to_environment, is_in_environment

__all__ = [
    "ENV_PREFIX",
    "EXIT_SETTINGS",
    "LogFormat",
    "LogLevel",
    "SettingDescription",
    "SettingSource",
    "Settings",
    "export_to_environment",
    "is_in_environment",
]
