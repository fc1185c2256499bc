"""Jinja for chat templates: what `transformers` gives them, in a sandbox that bounds the work of one rendering.

A template comes with a model, from strangers, and works on what callers send. It reaches no internals, changes nothing
outside itself, and ends: each turn of a loop, each call, each character made or compared is charged to a meter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sized
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from distilgpt2_api.text.template_filters import chat_filters, chat_tests, growth, paid_items
from distilgpt2_api.text.template_meter import METER, STEP_COST

WIDE_FORMAT = re.compile(r"\d{4,}|\*")

TEXT_METHODS = re.findall(
    r"\w+",
    "capitalize casefold count endswith find index isalnum isalpha isdigit islower isnumeric isspace isupper join lower"
    " lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines"
    " startswith strip swapcase title upper",
)
"""All but `format`, and those whose result grows with a number, like `center`."""


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
        self.filters = chat_filters(self.filters)
        self.tests = chat_tests(self.tests)
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace")}
        self.globals["raise_exception"] = _raise_exception

    # Put by Metering where Jinja has no hook of its own.

    def turns(self, iterable: Iterable[object]) -> Iterable[object]:
        """What a loop goes through."""
        items = iterable if isinstance(iterable, Sized) else list(iterable)
        METER.get().charge(STEP_COST * len(items))
        return items

    def concatenate(self, *values: object) -> str:
        """The operator `~`."""
        METER.get().charge_text(values)
        return "".join(map(str, values))

    def weigh(self, value: object) -> object:
        """A list or the like just made, or what is compared: what holds itself twice over is heavy soon."""
        METER.get().charge_text(value)
        return value

    def measure(self, value: object) -> object:
        """What is cut from."""
        if isinstance(value, Sized):
            METER.get().charge(len(value))
        return value

    # Jinja's hooks.

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Jinja would let `format` through on its own, though not to internals; widths it does not bound."""

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, tuple):
            raise SecurityError("tuples are no keys here")
        return super().getitem(obj, argument)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(function, "__self__", None)
        if owner is self:
            return function(*args)  # What Metering put there charges for itself.
        meter = METER.get()
        meter.charge(STEP_COST)
        match owner:
            case str() as text:
                meter.charge(len(text))
                if function.__name__ == "replace":
                    meter.charge(growth(text, *args[:2]))
                elif function.__name__ == "join" and args:
                    args = (paid_items(args[0], text),)
            case list() | tuple() as items:
                meter.charge_text(items)
                meter.charge_text(args)
            case dict():
                meter.charge_text(args)
        result = super().call(context, function, *args, **kwargs)
        if isinstance(result, str | list | dict):
            meter.charge_text(result)
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter = METER.get()
        match operator, left, right:
            case "+", _, _:
                if not isinstance(left, int | float):
                    meter.charge(len(left) + len(right))
            case "*", int() | float(), int() | float():
                meter.charge_text((left, right))
            case ("*", str() as text, int() as times) | ("*", int() as times, str() as text):
                meter.charge(len(text) * max(times, 0))
            case "%", str() as text, _:
                if WIDE_FORMAT.search(text):
                    raise SecurityError("formatting to such a width is not allowed")
                meter.charge_text((text, right))
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

    # ruff: noqa: N802, N815 - Jinja finds these by its nodes' names

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise jinja2.TemplateSyntaxError("recursive loops are not supported", node.lineno)
        self.generic_visit(node)
        node.iter = _call("turns", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("concatenate", *node.nodes, line=node.lineno)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        operands: list[Any] = [node, *node.ops]
        for left, right in zip(operands, node.ops, strict=False):
            # With a constant, `==` ends at the constant's length.
            is_cheap = right.op in {"eq", "ne"} and isinstance(node.expr, nodes.Const) != isinstance(
                right.expr, nodes.Const
            )
            if not is_cheap:
                left.expr, right.expr = _call("weigh", left.expr), _call("weigh", right.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _call("measure", node.node)
        return node

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        is_made_here = node.ctx == "load" and node.name in {"varargs", "kwargs"}
        return _call("weigh", node) if is_made_here else node

    def visit_List(self, node: nodes.List | nodes.Tuple | nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else _call("weigh", node)

    visit_Tuple = visit_Dict = visit_List

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        return nodes.Const(node.data, lineno=node.lineno)  # which goes through `finalize`, as this would not

    def _refuse(self, node: nodes.Node) -> NoReturn:
        raise jinja2.TemplateSyntaxError(f"{type(node).__name__.lower()}: other templates are not loaded", node.lineno)

    visit_Include = visit_Import = visit_FromImport = visit_Extends = _refuse


class GenerationTag(Extension):
    """`{% generation %}`, which marks the assistant's words for training, and means nothing here."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own form

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _call(method: str, *arguments: Any, line: int | None = None) -> nodes.Call:
    line = arguments[0].lineno if line is None else line
    return nodes.Call(nodes.EnvironmentAttribute(method, lineno=line), list(arguments), [], None, None, lineno=line)


@pass_context
def _pay_for_output(_context: Context, value: object) -> object:
    # With the context, though it needs none: else constants would be put out while a template is read.
    METER.get().charge_text(value)
    return value


def _raise_exception(message: object) -> NoReturn:
    raise jinja2.TemplateError(str(message))
