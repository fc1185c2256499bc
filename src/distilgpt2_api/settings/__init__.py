"""The settings of the service. Precedence: command line, environment, file, default."""

from distilgpt2_api.settings.settings import EXIT_SETTINGS, LogFormat, LogLevel, Settings
from distilgpt2_api.settings.sources import export_to_environment

__all__ = ["EXIT_SETTINGS", "LogFormat", "LogLevel", "Settings", "export_to_environment"]
