"""Module names say what is in the module."""

from __future__ import annotations

import re
from typing import Any

EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "misc", "data", "base"}
"""Names that don't say what belongs in a module, so that everything ends up there."""


def test_no_module_has_an_empty_name(modules: list[Any]) -> None:
    assert [module.name for module in modules if EMPTY_NAMES & set(re.split(r"[/_.]", module.name))] == []
