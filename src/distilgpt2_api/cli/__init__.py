"""The command line: `distilgpt2-api COMMAND`. One module per command: it reads options, calls down and prints."""

from distilgpt2_api.cli.commands import main

__all__ = ["main"]
