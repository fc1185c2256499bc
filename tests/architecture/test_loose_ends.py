"""What is declared is used, what is used is documented, what is offered is tested."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any, TypeGuard

import pytest
from fastapi.routing import APIRoute

from distilgpt2_api.core import errors
from distilgpt2_api.core.errors import Distilgpt2ApiError, ModelError, SettingsError
from distilgpt2_api.server.app import build_routes
from distilgpt2_api.server.http.errors import ERROR_MAPPINGS
from distilgpt2_api.settings import Settings

ERRORS = [item for item in vars(errors).values() if inspect.isclass(item) and issubclass(item, Distilgpt2ApiError)]
BEFORE_HTTP = (ModelError, SettingsError)
"""Errors of the start: no request ever meets them."""


def _template_pattern(path: str) -> re.Pattern[str]:
    """What a test that calls the route writes: the template, its parameters filled in somehow, or itself."""
    with_values = re.sub(r"\\\{[^/]+\\\}", r"[^/\\s\"?]+", re.escape(path))
    return re.compile(rf"\"(GET |POST |HEAD )?{with_values}[?\"]|\}}{with_values}[?\"]")


@pytest.fixture(scope="module")
def tests_of_the_service(root: Path) -> str:
    folders = [root / "tests" / name for name in ("server", "contract", "e2e")]
    return "\n".join(path.read_text(encoding="utf-8") for folder in folders for path in sorted(folder.rglob("*.py")))


def _routes() -> list[str]:
    return sorted({route.path for route in build_routes() if isinstance(route, APIRoute)})


@pytest.mark.parametrize("path", _routes())
def test_every_route_is_called_by_a_test(path: str, tests_of_the_service: str) -> None:
    assert _template_pattern(path).search(tests_of_the_service)


def test_every_setting_is_read(modules: list[Any]) -> None:
    """As an attribute, by what it is handed to or by the settings' own methods."""
    read = {
        node.attr
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        if isinstance(node.value, ast.Name) and node.value.id in {"settings", "self"}
        if node.value.id == "settings" or module.name.startswith("settings/")
    }

    assert Settings.model_fields.keys() - read == set()


def test_every_setting_says_what_it_does() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_error_is_raised_or_the_parent_of_one_that_is(modules: list[Any]) -> None:
    used = {
        node.id if isinstance(node, ast.Name) else node.attr
        for module in modules
        if module.name not in {"core/errors.py", "server/http/errors.py"}
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name | ast.Attribute)
    }

    unused = {
        cls.__name__ for cls in ERRORS if not used & {child.__name__ for child in ERRORS if issubclass(child, cls)}
    }
    assert unused == set()


def test_every_error_that_a_request_can_meet_has_a_row_of_its_own() -> None:
    """In the one table of statuses. The root's row is for what nobody thought of."""
    without = [cls for cls in ERRORS if cls not in ERROR_MAPPINGS and not issubclass(cls, BEFORE_HTTP)]

    assert [cls for cls in without if not (set(cls.__mro__[1:]) & ERROR_MAPPINGS.keys()) - {Distilgpt2ApiError}] == []


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"^(?:[│├└─ ]*)(\w+Error)\b", inspect.getdoc(errors) or "", flags=re.MULTILINE)

    assert sorted(drawn) == sorted(cls.__name__ for cls in ERRORS)


def test_a_reported_fault_names_its_source(root: Path) -> None:
    """`@pytest.mark.reported("…")`: who met the fault, or where it was read, in words."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((root / "tests").rglob("test_*.py"))}
    marks = [(path, node) for path, tree in trees.items() for node in ast.walk(tree) if _is_reported(node)]
    named = {
        node.func
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and len(node.args) == 1
        if isinstance(source := node.args[0], ast.Constant) and len(str(source.value).split()) > 1
    }

    assert [f"{path.relative_to(root)}:{node.lineno}" for path, node in marks if node not in named] == []


def _is_reported(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and node.attr == "reported"
