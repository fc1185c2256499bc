"""Modules are named for what is in them."""

from __future__ import annotations

import re
from typing import Any

EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "misc", "data", "base"}
"""Names that say nothing of what is in a module, so that everything ends up there."""


def test_modules_are_named_for_what_is_in_them(modules: list[Any]) -> None:
    assert [module.name for module in modules if EMPTY_NAMES & set(re.split(r"[/_.]", module.name))] == []
