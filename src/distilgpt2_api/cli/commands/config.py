"""`distilgpt2-api config`: prints every setting with its value and source."""

from dataclasses import asdict

import click

from distilgpt2_api.cli.terminal import print_table
from distilgpt2_api.settings import Settings
from distilgpt2_api.settings.page import configuration_page


@click.command("config")
@click.option("--markdown", is_flag=True, help="Print docs/configuration.md, without this machine's values.")
def command(*, markdown: bool) -> None:
    """Show every setting, its value and its source.

    To change a setting, set its environment variable, or its name in the TOML file that DISTILGPT2_CONFIG_FILE names.
    """
    if markdown:
        click.echo(configuration_page(), nl=False)
        return
    settings = Settings()
    resolved = asdict(settings.engine_config()) | {"max_connections": settings.choose_max_connections()}
    rows = []
    for setting in settings.describe():
        value = setting.value or "(none)"
        if value == "auto" and setting.name in resolved:
            value = f"auto ({resolved[setting.name]})"
        rows.append((setting.name, value, str(setting.source)))
    print_table(("setting", "value", "source"), rows, num_left=3)
