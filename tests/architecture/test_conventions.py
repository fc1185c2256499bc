"""The project's conventions, as far as a program can check them. import-linter checks imports (`make imports`)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

MAX_LINES = 300
LATE_IMPORTS = {
    "__main__.py": "an interrupt while the commands are imported ends the process without a traceback",
    "api.py": "NumPy, whose import ends the process on a processor that a check refuses before",
    "application.py": "traces and stores are optional, and their imports take time and memory",
    "cli/commands/batch.py": "the kernels: with --ray only the cluster's processes load them",
    "cli/commands/pull.py": "the hub is an optional dependency",
    "server/protocols/openai/batches/files_route.py": "the form parser is an optional dependency",
    "text/chat_templates/chat_template.py": "a start without a template does not wait for Jinja",
    "text/structured_output/grammars.py": "a start does not wait for the grammar library",
    "usage/databases.py": "the driver of PostgreSQL is an optional dependency",
    "worker.py": "the kernels and the server: the workers load them, the master does not",
}
"""Modules that import something inside a function, and why. `import_module` counts."""
LATE_MODULES = {
    "cli/group.py": "imports only the command that runs, without the kernels that others need",
}


def test_a_module_is_short_documented_and_honest_about_its_imports(module: Any) -> None:
    assert module.num_lines <= MAX_LINES
    assert ast.get_docstring(module.tree), "a module says what it is for"
    assert "TYPE_CHECKING" not in module.text, "a cycle is removed, not hidden"
    assert not [node for node in ast.walk(module.tree) if isinstance(node, ast.Global)], "no global state"


def test_imports_stand_at_the_top(modules: list[Any]) -> None:
    late = {module.name for module in modules if _has_late_import(module.tree)}
    by_name = {module.name for module in modules if "import_module(" in module.text or "__import__(" in module.text}

    assert late == LATE_IMPORTS.keys()
    assert by_name == LATE_MODULES.keys()


def _has_late_import(tree: ast.Module) -> bool:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return any(isinstance(node, ast.Import | ast.ImportFrom) for item in functions for node in ast.walk(item))


def test_only_the_settings_read_the_environment(modules: list[Any]) -> None:
    readers = [module.name for module in modules if re.search(r"\bos\.(environ|getenv)\b", module.text)]

    # `serve` passes its options to the worker through the environment, with a function of `sources`.
    assert readers == ["settings/sources.py"]


def test_a_checker_is_silenced_with_a_reason(root: Path) -> None:
    """`# noqa: CODE - why` and `# type: ignore[code]  # why`."""
    pattern = re.compile(r"#.*\bnoqa\b(?!: [A-Z]+\d+(, [A-Z]+\d+)* - \S)|# type: ignore(?!\[[a-z, -]+\]  # \S)")
    found = [
        f"{path.relative_to(root)}:{number}"
        for folder in ("src", "tests", "benchmarks", "docker", "training")
        for path in sorted((root / folder).rglob("*.py"))
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]

    assert found == []


def test_importing_the_package_loads_none_of_its_dependencies() -> None:
    program = "import sys, distilgpt2_api; print([m for m in sys.modules if m in ('fastapi', 'numpy', 'tokenizers')])"

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_the_readme_begins_with_the_two_commands(root: Path) -> None:
    commands = re.findall(r"^```sh\n(.+?)\n```$", (root / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)

    assert [command for command in commands if command.startswith("make")][:2] == ["make run", "make test"]


def test_the_bundled_model_takes_at_most_8_mb(root: Path) -> None:
    folder = root / "src" / "distilgpt2_api" / "models" / "storyteller"

    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_models_of_bodies_are_built_when_they_are_first_used(modules: list[Any]) -> None:
    """A start that builds all of them takes longer. A query's model is FastAPI's, which builds it at once."""
    built = {
        node.name
        for module in modules
        if module.name.startswith("server/")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and "BaseModel" in [ast.unparse(base) for base in node.bases]
    }

    assert {name for name in built if not name.endswith("Query")} == {"DeferredModel"}
