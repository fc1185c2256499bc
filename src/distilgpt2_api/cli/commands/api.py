"""`distilgpt2-api api`: prints docs/api.md."""

import click

from distilgpt2_api.cli.api_reference.page import api_page
from distilgpt2_api.server.app import build_routes


@click.command("api")
def command() -> None:
    """Print the reference of the HTTP API, docs/api.md: routes, errors, streams, every parameter."""
    click.echo(api_page(build_routes()), nl=False)
