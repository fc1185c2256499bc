"""Jinja for chat templates: what `transformers` gives them, in a sandbox that bounds the work of one rendering.

A template comes with a model, from strangers, and works on what callers send. It reaches no internals, changes nothing
outside itself, and ends: each turn of a loop, each call and each character that it makes is charged to a meter.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sized
from contextvars import ContextVar
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

STEP_COST = 16
"""Of a loop's turn or of a call, where a character costs 1: about what they cost in time."""
MAX_INDENT = 64
WIDE_FORMAT = re.compile(r"\d{4,}|\*")

WORD = re.compile(r"\w+")

TEXT_METHODS = WORD.findall(
    "capitalize casefold count endswith find index isalnum isalpha isdigit islower isnumeric isspace isupper join lower"
    " lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines"
    " startswith strip swapcase title upper"
)
"""All but `format`, and those whose result grows with a number, like `center`."""

FILTERS = WORD.findall(
    "abs attr capitalize count d default dictsort escape e first float int items last length list lower map max min"
    " reject rejectattr reverse safe select selectattr sort string title trim truncate unique upper wordcount"
)
"""Jinja's own, of the kinds that chat templates use; `join`, `replace`, `indent` and `tojson` are ours."""


class TemplateLimitError(Exception):
    """A rendering took more work than it may."""


class Meter:
    """Mutable: the work that one rendering may still do, in characters."""

    def __init__(self, budget: int) -> None:
        self._left = budget

    def charge(self, cost: int) -> None:
        """Raises TemplateLimitError when nothing is left."""
        self._left -= cost
        if self._left < 0:
            raise TemplateLimitError("the chat template takes too much work for these messages")

    def charge_text(self, value: object) -> None:
        """Charge for `value` as a text, before anybody makes it one: lists of lists can be long beyond measure."""
        match value:
            case str():
                self.charge(len(value))
            case int():
                self.charge(value.bit_length() // 3 + 1)
            case Mapping():
                for pair in value.items():
                    self.charge_text(pair)
            case list() | tuple():
                self.charge(STEP_COST)
                for item in value:
                    self.charge_text(item)
            case _:
                self.charge(STEP_COST)


METER: ContextVar[Meter] = ContextVar("METER")
"""Of the rendering that this thread is at."""


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Compiles templates whose every step is charged to METER, which must be set while one renders."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        # No optimizer: it would compute constants (`"a" * 10**9`) while a template is read, on nobody's meter.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            extensions=[GenerationTag, loopcontrols],
            finalize=_pay_for_output,
            cache_size=0,
        )
        self.filters = {name: _metered(function) for name, function in self.filters.items() if name in FILTERS}
        self.filters |= {"join": _join, "replace": _replace, "indent": _indent, "tojson": _tojson}
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace")}
        self.globals["raise_exception"] = _raise_exception

    def turns(self, iterable: Iterable[object]) -> Iterable[object]:
        """What a loop goes through; Metering puts it there."""
        items = iterable if isinstance(iterable, Sized) else list(iterable)
        METER.get().charge(STEP_COST * len(items))
        return items

    def concatenate(self, *values: object) -> str:
        """The operator `~`; Metering puts it there."""
        METER.get().charge_text(values)
        return "".join(map(str, values))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Jinja would let `format` through on its own, though not to internals; widths it does not bound."""

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        meter = METER.get()
        meter.charge(STEP_COST)
        text = getattr(function, "__self__", None)
        if isinstance(text, str) and args:
            meter.charge(len(text))
            if function.__name__ == "replace":
                meter.charge(_growth(text, *args[:2]))
            elif function.__name__ == "join":
                args = (_paid_items(args[0], text),)
        result = super().call(context, function, *args, **kwargs)
        if isinstance(result, str | list):
            meter.charge(len(result))
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter = METER.get()
        match operator, left, right:
            case "+", _, _:
                if not isinstance(left, int | float):
                    meter.charge(len(left) + len(right))
            case "*", int() | float(), int() | float():
                meter.charge(_num_digits(left) + _num_digits(right))
            case ("*", str() as text, int() as times) | ("*", int() as times, str() as text):
                meter.charge(len(text) * max(times, 0))
            case "%", str() as text, _:
                if WIDE_FORMAT.search(text):
                    raise SecurityError("formatting to such a width is not allowed")
                meter.charge_text(right)
            case "%", int() | float(), int() | float():
                pass
            case _:
                raise SecurityError(f"{operator} is not allowed here")
        return super().call_binop(context, operator, left, right)

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        return super()._generate(Metering().visit(source), name, filename, defer_init)


class Metering(NodeTransformer):
    """Puts the meter where Jinja has no hook of its own."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's name
        if node.recursive:
            raise jinja2.TemplateSyntaxError("recursive loops are not supported", node.lineno)
        self.generic_visit(node)
        node.iter = _call("turns", [node.iter], node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - the same
        self.generic_visit(node)
        return _call("concatenate", node.nodes, node.lineno)

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802 - the same
        return nodes.Const(node.data, lineno=node.lineno)  # which goes through `finalize`, as this would not

    def _refuse(self, node: nodes.Node) -> NoReturn:
        raise jinja2.TemplateSyntaxError(f"{type(node).__name__.lower()}: other templates are not loaded", node.lineno)

    visit_Include = visit_Import = visit_FromImport = visit_Extends = _refuse  # noqa: N815 - the same


class GenerationTag(Extension):
    """`{% generation %}`, which marks the assistant's words for training, and means nothing here."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own form

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _call(method: str, arguments: list[Any], line: int) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method, lineno=line), arguments, [], None, None, lineno=line)


@pass_context
def _pay_for_output(_context: Context, value: object) -> object:
    # With the context, though it needs none: else constants would be put out while a template is read.
    METER.get().charge_text(value)
    return value


def _metered(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:
        meter = METER.get()
        meter.charge_text(args)
        result = function(*args, **kwargs)
        if isinstance(result, str | list):
            meter.charge(len(result))
        return result

    return paid


def _join(items: Iterable[object], separator: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        raise SecurityError("join: write map(attribute=…) | join")
    return str(separator).join(map(str, _paid_items(items, str(separator))))


def _paid_items(items: Iterable[object], separator: str) -> list[object]:
    listed = list(items)
    METER.get().charge_text(listed)
    METER.get().charge(len(separator) * len(listed))
    return listed


def _replace(value: object, old: str, new: str, count: int = -1) -> str:
    METER.get().charge_text(value)
    text = str(value)
    METER.get().charge(len(text) + _growth(text, old, new))
    return text.replace(old, new, count)


def _growth(text: str, old: object = "", new: object = "") -> int:
    """Characters that come in where `new` replaces `old`."""
    return text.count(old) * len(new) if isinstance(old, str) and isinstance(new, str) else 0


def _indent(value: object, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    METER.get().charge_text(value)
    unit = width if isinstance(width, str) else " " * min(width, MAX_INDENT)
    lines = str(value).splitlines()
    METER.get().charge((len(unit) + 1) * len(lines))
    indented = [unit + line if (line or blank) and (index or first) else line for index, line in enumerate(lines)]
    return "\n".join(indented)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As `transformers` has it: not for HTML, and no character escaped that need not be."""
    METER.get().charge_text(value)
    width = None if indent is None else min(indent, MAX_INDENT)
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=width, separators=separators, sort_keys=sort_keys)
    METER.get().charge(len(text))
    return text


def _raise_exception(message: object) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _num_digits(number: float) -> int:
    return number.bit_length() // 3 + 1 if isinstance(number, int) else 1
