"""Every route has a test, every setting is read and documented, every error class is raised and has a status."""

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
"""Errors at start-up: no request meets them."""


def _template_pattern(path: str) -> re.Pattern[str]:
    """Matches a test's call of the route: the template with values for its parameters, or the template itself."""
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
    """As an attribute of `settings`, or of `self` in the settings' own methods."""
    read = {
        node.attr
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        if isinstance(node.value, ast.Name) and node.value.id in {"settings", "self"}
        if node.value.id == "settings" or module.name.startswith("settings/")
    }

    assert Settings.model_fields.keys() - read == set()


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_error_or_a_subclass_of_it_is_raised(modules: list[Any]) -> None:
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


def test_every_error_that_a_request_can_meet_has_its_own_row() -> None:
    """In the table of statuses. The base class's row is only the fallback."""
    without = [cls for cls in ERRORS if cls not in ERROR_MAPPINGS and not issubclass(cls, BEFORE_HTTP)]

    assert [cls for cls in without if not (set(cls.__mro__[1:]) & ERROR_MAPPINGS.keys()) - {Distilgpt2ApiError}] == []


def test_the_docstring_of_errors_draws_their_tree() -> None:
    drawn = re.findall(r"^(?:[│├└─ ]*)(\w+Error)\b", inspect.getdoc(errors) or "", flags=re.MULTILINE)

    assert sorted(drawn) == sorted(cls.__name__ for cls in ERRORS)


def test_a_reported_fault_names_its_source(root: Path) -> None:
    """`@pytest.mark.reported("…")`: who reported the fault, or where it is described, in more than one word."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((root / "tests").rglob("test_*.py"))}
    trees = {path: ast.parse(text) for path, text in texts.items() if "reported" in text}
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
