"""The settings of the service. Precedence: command line, environment, file, default."""

from distilgpt2_api.settings.settings import LogFormat, LogLevel, Settings, read_log_format
from distilgpt2_api.settings.sources import export_to_environment, keep_blas_single_threaded

__all__ = ["LogFormat", "LogLevel", "Settings", "export_to_environment", "keep_blas_single_threaded", "read_log_format"]
