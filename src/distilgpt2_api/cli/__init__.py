"""The command line: `distilgpt2-api COMMAND`. The commands are in `commands/`, their shared parts beside it."""

from distilgpt2_api.cli.group import main

__all__ = ["main"]
