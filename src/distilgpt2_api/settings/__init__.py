"""Every setting of the service, once: command line over environment over file over default."""

from distilgpt2_api.settings.settings import EXIT_SETTINGS, LogFormat, LogLevel, Settings
from distilgpt2_api.settings.sources import export_to_environment, is_set

__all__ = ["EXIT_SETTINGS", "LogFormat", "LogLevel", "Settings", "export_to_environment", "is_set"]
