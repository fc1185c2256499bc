"""The parameters of other servers' APIs, read from reference_apis.toml."""

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceApi:
    name: str
    source: str
    """The specification or program that lists the parameters."""
    parameters: tuple[str, ...]


REFERENCE_APIS = {
    key: ReferenceApi(name=api["name"], source=api["source"], parameters=tuple(api["parameters"].split()))
    for key, api in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).items()
}
REFERENCE_PARAMETERS = frozenset(name for api in REFERENCE_APIS.values() for name in api.parameters)
"""Every route accepts null for these names: null requests nothing."""
