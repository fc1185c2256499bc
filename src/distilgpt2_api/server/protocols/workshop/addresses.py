"""Paths that are addresses, never prompts: browsers, platforms, monitors, SDKs and scanners request them."""

import re
from collections.abc import Container, Mapping
from fnmatch import translate

from distilgpt2_api.server.http.routing.paths import PAGE_PATHS

NAMES: Mapping[str, str] = {
    "health checks and monitors": "alive health-check healthcheck healthy heartbeat live liveness metric prometheus "
    "readiness ready server-info server-status startup startupz stats status statusz up varz warmup",
    "clients of other services": "api api-docs apply-template chat classify completion completions embed embedding "
    "embeddings engines graphql inference infill invocations load lora-adapters mcp messages model models openai "
    "openapi pooling predict predictions props rerank responses slots sse swagger swagger-ui v[0-9] v[0-9]alpha* "
    "v[0-9]beta* ws",
    "browsers": "apple-app-site-association apple-touch-icon* favicon robots sitemap",
    "scanners": "HNAP1 actuator admin* autodiscover backup backups boaform cgi-bin config configuration console cpanel "
    "dashboard debug ecp env gitlab grafana heapdump horizon jenkins jolokia kibana login logon manager nmap* owa "
    "phpinfo phpmyadmin* pma remote sdk shell signin solr telescope trace webmail wordpress wp wp-* xmlrpc",
}
"""Single words that are addresses, by client; `*` is any text, `[0-9]` any digit. docs/api.md lists them."""

WORD = re.compile(r"[!-~]+")
FILE_NAME = re.compile(r"\.(?=\d*[A-Za-z])\w+~?$")
"""Ends like a file name: a dot, then letters and digits with at least one letter."""
NAME = re.compile("|".join(translate(name) for names in NAMES.values() for name in names.split()))


def is_address(path: str, *, has_slash: bool, trees: Container[str]) -> bool:
    """`path`: decoded, without its first slash. `has_slash`: whether another slash was sent as such, not as `%2F`.

    `trees`: first segments of the protocols' own paths.
    """
    tree = path.partition("/")[0]
    if tree in trees or f"/{tree}" in PAGE_PATHS:
        return True
    if not WORD.fullmatch(path):
        return False
    return has_slash or path[0] == "." or "_" in path or bool(FILE_NAME.search(path) or NAME.fullmatch(path))
