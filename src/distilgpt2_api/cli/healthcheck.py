"""`distilgpt2-api healthcheck`: the container's HEALTHCHECK, so that the image needs no curl."""

import http.client
import sys
from urllib.parse import urlsplit

import click

from distilgpt2_api.cli.addresses import WILDCARDS, url_of
from distilgpt2_api.cli.options import FiniteRange
from distilgpt2_api.settings import Settings


@click.command("healthcheck")
@click.option("--url", metavar="URL", help="URL to check. Default: /readyz at the address in the settings.")
@click.option("--timeout", "timeout_s", type=FiniteRange(min=0.1), default=3.0, show_default=True, help="In seconds.")
def command(*, url: str | None, timeout_s: float) -> None:
    """Check whether a running service is ready. Exit status: 0 if it is, 1 if it is not."""
    if url is None:
        settings = Settings()
        url = f"{url_of(WILDCARDS.get(settings.host, settings.host), settings.port)}/readyz"
    try:
        status = _get_status(url, timeout_s)
    except (OSError, ValueError, http.client.HTTPException) as error:
        click.echo(f"unhealthy: {url}: {' '.join(str(error).split()) or type(error).__name__}")
        sys.exit(1)
    click.echo(f"{'healthy' if status == http.client.OK else 'unhealthy'}: {url}: {status}")
    sys.exit(status != http.client.OK)


def _get_status(url: str, timeout_s: float) -> int:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("the URL must be http://HOST[:PORT]/PATH")
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)
    try:
        connection.request("GET", parts._replace(scheme="", netloc="").geturl() or "/")
        return connection.getresponse().status
    finally:
        connection.close()
