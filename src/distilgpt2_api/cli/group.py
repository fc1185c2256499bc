"""The command group: imports the requested command and prints errors in one line."""

import errno
import gc
from importlib import import_module

import click

from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.core.interrupts import INTERRUPTED, end_line, raise_on_interrupt
from distilgpt2_api.core.processor import check_processor

COMMANDS = {
    "serve": "Serve a model over HTTP.",
    "generate": "Complete a prompt in the terminal.",
    "batch": "Answer a file of requests without a server.",
    "pull": "Fetch a model from the Hugging Face hub.",
    "convert": "Convert a PyTorch checkpoint, or merge an adapter.",
    "evaluate": "Measure perplexity and speed on a text, or score texts.",
    "plan": "Calculate how many nodes a load needs, and their cost.",
    "keys": "Create, list and revoke API keys.",
    "config": "Show every setting with its value and source.",
    "api": "Print the reference of the HTTP API.",
    "reference": "Print the reference of the command line.",
    "healthcheck": "Check whether a running service is ready.",
}

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of a standard output that is a file, as in `> FILE`. Other files have messages of their own."""


class OneLineError(click.ClickException):
    """`error: message` on stderr, exit status 1."""

    def show(self, file: object = None) -> None:  # noqa: ARG002 - click's signature
        click.echo(f"error: {self.message}", err=True)


class CommandGroup(click.Group):
    """Imports a command's module only when that command runs.

    `evaluate` imports NumPy and `serve` Gunicorn. `--help` and `healthcheck`, which containers run every few
    seconds, must not wait for them.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        if cmd_name not in COMMANDS:
            return None
        if cmd_name != "serve":  # it reports the processor in the log's format
            check_processor()
        gc.disable()  # modules live for good: collections that scan them would only delay the start
        try:
            command = import_module(f"distilgpt2_api.cli.commands.{cmd_name}").command
        finally:
            gc.enable()
        assert isinstance(command, click.Command)
        raise_on_interrupt()  # the command may have something to finish
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Distilgpt2ApiError as error:
            raise OneLineError(str(error)) from None
        except KeyboardInterrupt:
            end_line()
            raise click.exceptions.Exit(INTERRUPTED) from None
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise OneLineError(f"can't write the output: {error.strerror}") from None


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="distilgpt2-api", message="%(prog)s %(version)s")
def main() -> None:
    """DistilGPT-2, and any GPT-2 checkpoint, as a REST API.

    A command's options override environment variables (DISTILGPT2_*), which override the settings file, which
    overrides the defaults. `distilgpt2-api config` shows every setting.
    """
