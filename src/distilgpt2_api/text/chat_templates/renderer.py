"""Renders chat templates in Jinja's sandbox, with what `transformers` gives them.

The sandbox keeps a template from Python's internals and from changing its values. It does not bound time or memory:
for that a template that is not the operator's own is rendered in a limited process, whose main module this is.
"""

import html
import json
import pprint
import textwrap
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from distilgpt2_api.text.limited_process import serve

MAX_MESSAGE_CHARACTERS = 500
"""Longest error text that a template can raise; the rest is cut off."""
MAX_GROWTH = 16
"""How many times longer than the model's context, or than the messages, a rendered text may be."""
IMPORTED_LATE = (html, pprint, textwrap)
"""Some filters import these at their first use, when the limited process can't open files any more."""


class GenerationTag(Extension):
    """`{% generation %}`: marks the assistant's text for training; it has no effect here."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own form

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _build_environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[GenerationTag, loopcontrols],
        # Without these two Jinja computes constants such as `"a" * 10**9` when it compiles, outside the limits.
        optimized=False,
        finalize=_finalize,
        cache_size=0,
    )
    environment.filters["tojson"] = _tojson
    environment.globals = {name: environment.globals[name] for name in ("range", "dict", "namespace")}
    environment.globals["raise_exception"] = _raise_exception
    return environment


@pass_context
def _finalize(_context: Context, value: object) -> object:
    return value


def _tojson(value: object, ensure_ascii: bool = False, **options: Any) -> str:
    """As `transformers` defines it: no escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise_exception(message: object) -> NoReturn:
    raise jinja2.TemplateError(str(message))


ENVIRONMENT = _build_environment()


@lru_cache(maxsize=8)
def compile_template(source: str) -> jinja2.Template:
    """Raises the errors of Jinja's parser and of Python's compiler."""
    return ENVIRONMENT.from_string(source)


def find_variables(source: str) -> set[str]:
    """Names that the template reads and does not set. Raises TemplateSyntaxError, also if it loads other templates."""
    tree = ENVIRONMENT.parse(source)
    for other in tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
        raise jinja2.TemplateSyntaxError(
            f"{type(other).__name__.lower()}: other templates are not loaded", other.lineno
        )
    generator = meta.TrackingCodeGenerator(ENVIRONMENT)
    generator.optimizer = None  # `meta.find_undeclared_variables` would compute constants.
    generator.visit(tree)
    return generator.undeclared_identifiers


def render(*, source: str, values: Mapping[str, object], now: str, max_characters: int) -> dict[str, str]:
    """The rendered `text`, or an `error` in one line. `now` is in ISO 8601; `max_characters` is the model's context."""
    clock = datetime.fromisoformat(now)
    try:
        text = compile_template(source).render({**values, "strftime_now": clock.strftime})
    except Exception as error:  # noqa: BLE001 - a template can raise any of Python's errors
        return {"error": describe_error(error)}
    # Long messages may exceed the context: the error about it is the tokenizer's, which knows the number of tokens.
    if len(text) > MAX_GROWTH * max(max_characters, len(str(values))):
        return {"error": f"the chat template writes {len(text)} characters"}
    return {"text": text}


def describe_error(error: Exception) -> str:
    """The error in one line. Python's own errors could quote the messages, so only their type is named."""
    match error:
        case jinja2.TemplateSyntaxError():
            return f"{error.message} (line {error.lineno})"
        case jinja2.UndefinedError():
            return "the chat template reads a variable or attribute that does not exist"
        case jinja2.TemplateError():
            message = " ".join(str(error).split())
            return message[:MAX_MESSAGE_CHARACTERS] or "the chat template refuses them"
        case RecursionError() | MemoryError():
            return "the chat template is nested too deeply or takes too much memory"
        case _:
            return f"the chat template fails with a {type(error).__name__}"


if __name__ == "__main__":
    # Makes Jinja import what it needs for string literals and for errors while files can still be opened.
    render(source="{{ raise_exception('x') }}", values={}, now="2000-01-01", max_characters=1)
    serve(lambda task: render(**task), prepare=compile_template)
