"""`distilgpt2-api reference`: prints docs/cli.md, generated from the commands."""

import inspect
import re
from collections.abc import Iterator

import click

PREFACE = """\
<!-- Generated: `distilgpt2-api reference > docs/cli.md` -->

# Command line

Run `distilgpt2-api COMMAND` or `python -m distilgpt2_api COMMAND`. Settings without an option come from the environment
or a file: see [configuration](configuration.md). `--help` prints the same descriptions.

An error is one line on standard error and a non-zero exit status: 1 if the command failed; 2 if the command line is
wrong, and then the usage stands above the line. `serve` has [more exit statuses](operations.md#when-something-breaks).
Ctrl-C ends a command with 130, without a message. Two finish their work first: a service that listens
[shuts down](operations.md#shutdown-and-reload), and a batch says how to continue, with status 1.
"""


@click.command("reference")
@click.pass_context
def command(context: click.Context) -> None:
    """Print the reference of the command line, docs/cli.md: every command and option."""
    group = context.find_root()
    click.echo("\n".join([PREFACE, *_sections(group, level=2)]), nl=False)


def _sections(parent: click.Context, *, level: int) -> Iterator[str]:
    group = parent.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(parent):
        child = group.get_command(parent, name)
        assert child is not None
        context = click.Context(child, info_name=name, parent=parent)
        yield _section(context, level)
        if isinstance(child, click.Group):
            yield from _sections(context, level=level + 1)


def _section(context: click.Context, level: int) -> str:
    root = context.find_root().command_path
    usage = " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
    heading = context.command_path.removeprefix(f"{root} ")
    lines = ["#" * level + f" {heading}", "", f"`{usage}`", "", inspect.cleandoc(context.command.help or ""), ""]
    options = [parameter for parameter in context.command.params if isinstance(parameter, click.Option)]
    if options:
        lines += ["| option | meaning |", "|---|---|", *(_row(option, context) for option in options), ""]
    return "\n".join(lines)


def _row(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    assert record is not None, "a hidden option"
    # click appends default and bounds in brackets. As code, `1<=x<=128` can't be read as markup.
    meaning = re.sub(r"  (\[.*\])$", r" `\1`", record[1])
    if isinstance(option.type, click.Choice):
        choices = ", ".join(f"`{choice}`" for choice in option.type.choices)
        return f"| `{'`, `'.join(option.opts)}` | {meaning} One of {choices}. |"
    return f"| `{_spelling(option)}` | {meaning} |"


def _spelling(option: click.Option) -> str:
    names = "`, `".join(option.opts)
    if option.is_flag:
        return names
    placeholder = {"integer range": "N", "float range": "X"}.get(option.type.name, option.type.name.upper())
    return f"{names} {option.metavar or placeholder}"
