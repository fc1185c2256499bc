"""Private interfaces of other packages: each one in use is listed here, and its package has an upper bound."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PRIVATE = {
    "click": {
        "FloatRange._describe_range": "describes a range without a finite end as click does",
    },
    "gunicorn": {
        "gunicorn.arbiter": "the exit status of a worker that can't boot",
        "gunicorn.errors": "ends the master with a one-line error",
        "gunicorn.util": "imports the application as Gunicorn does",
        "gunicorn.workers.base": "the base class of a worker",
    },
    "huggingface-hub": {
        "huggingface_hub.file_download": "resumes a download",
    },
    "jinja2": {
        "jinja2.parser": "the type of an extension's argument",
    },
    "prometheus-client": {
        "prometheus_client.exposition": "the format that a scraper accepts",
        "prometheus_client.utils": "bucket bounds as the client writes them",
    },
    "uvicorn": {
        "HttpToolsProtocol._unset_keepalive_if_required": "stops the timer when the connection closes",
        "uvicorn.protocols.http.httptools_impl": "the base class of the protocol with limits",
    },
}
"""Undocumented modules of each package, and underscore names of its classes, each with its use here."""

DOCUMENTED = {
    *(
        "click.core",
        "fastapi.exceptions",
        "fastapi.openapi.utils",
        "fastapi.routing",
        "gunicorn.app.base",
        "gunicorn.glogging",
    ),
    *("huggingface_hub.errors", "huggingface_hub.hf_api", "huggingface_hub.utils"),
    *("jinja2.ext", "jinja2.runtime", "jinja2.sandbox"),
    *("numpy.lib.stride_tricks", "numpy.typing", "pydantic.fields", "pydantic.json_schema"),
    *("prometheus_client.metrics_core", "prometheus_client.parser", "prometheus_client.registry"),
    *("prometheus_client.samples", "psycopg.conninfo"),
    *("python_multipart.exceptions", "python_multipart.multipart"),
    *("sqlalchemy.engine", "sqlalchemy.exc", "starlette.datastructures", "starlette.exceptions"),
    *("starlette.middleware.cors", "starlette.requests", "starlette.responses", "starlette.routing"),
    *("starlette.types", "structlog.typing", "tokenizers.models"),
}
"""Documented modules below a package's top level."""
DOCUMENTED_BELOW = ("opentelemetry", "ray")
"""Packages from which only documented modules are imported."""
STANDARD_LIBRARY = {"_exit", "_replace"}
"""Documented names of the standard library: `os._exit`, and `_replace` of named tuples."""


def test_modules_of_other_packages_are_documented_or_named_here(modules: list[Any]) -> None:
    private = {name for names in PRIVATE.values() for name in names}
    used = {name for module in modules for name in _imported_modules(module.tree)}
    unknown = {name for name in used - DOCUMENTED if name.split(".")[0] not in DOCUMENTED_BELOW}

    assert unknown == {name for name in private if name == name.lower()}


def test_private_names_of_other_packages_are_named_here(modules: list[Any]) -> None:
    """Names of a base class that a subclass here overrides or calls, and names of any other object."""
    private = {name for names in PRIVATE.values() for name in names}
    own = {name for module in modules for name in _defined_names(module.tree)}
    of_bases = {name for module in modules for name in _private_names_of_bases(module.tree)}
    of_others = {
        f"{module.name}: {ast.unparse(node)}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and _is_private(node.attr)
        and node.attr not in own | STANDARD_LIBRARY | {name.split(".")[-1] for name in of_bases}
    }

    assert of_bases == {name for name in private if name != name.lower()}
    assert of_others == set()


def test_a_package_with_a_private_interface_in_use_has_an_upper_bound(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    bounds = {name: str(bound) for name, bound in project["tool"]["poetry"]["dependencies"].items()}
    for extra in project["project"]["optional-dependencies"].values():
        bounds |= dict(re.findall(r"^([\w-]+)[^(]* \((.*)\)$", "\n".join(extra), re.MULTILINE))

    assert {name: bounds.get(name) for name in PRIVATE if "<" not in bounds.get(name, "")} == {}


def _imported_modules(tree: ast.Module) -> Iterator[str]:
    """Imported modules below the top level of third-party packages."""
    for node in ast.walk(tree):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if "." in name and name.split(".")[0] not in {*sys.stdlib_module_names, "distilgpt2_api"}:
                yield name


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _defined_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.attr if isinstance(node, ast.Attribute) else node.id


def _private_names_of_bases(tree: ast.Module) -> Iterator[str]:
    """`Base._name` for each underscore name of a third-party class that a subclass here defines or uses."""
    imported = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    } | {alias.name: alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        names = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)} | set(_defined_names(node))
        for base in map(ast.unparse, node.bases):
            first, _, rest = base.split("[")[0].partition(".")
            module, _, name = imported.get(first, "").partition(":")
            package = module.split(".")[0]
            if not package or package in {*sys.stdlib_module_names, "distilgpt2_api", "ray"}:
                continue  # Ray is an optional dependency, bound to one minor version
            found = getattr(importlib.import_module(module), name or rest)
            yield from (f"{found.__name__}.{own}" for own in names if _is_private(own) and hasattr(found, own))
