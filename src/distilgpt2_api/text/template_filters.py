"""Filters and tests of chat templates: those of Jinja that templates use, on the meter, and our own."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2.exceptions import SecurityError

from distilgpt2_api.text.template_meter import METER, STEP_COST

MAX_INDENT = 64
MAX_SEPARATOR = 8

TEXTUAL = re.findall(
    r"\w+",
    "capitalize dictsort e escape float int lower max min sort string title trim truncate unique upper wordcount",
)
"""Jinja's own that look at every character, or compare."""
STRUCTURAL = re.findall(
    r"\w+",
    "abs attr count d default first items last length list map reject rejectattr reverse safe select selectattr",
)
"""Jinja's own that look at the items of a list, if at so much."""
COMPARING_TESTS = [
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    *re.findall(r"\w+", "eq equalto ge greaterthan gt in le lessthan lt ne"),
]

Function = Callable[..., Any]


def chat_filters(jinjas: Mapping[str, Any]) -> dict[str, Any]:
    """By name, each on the meter. `jinjas`: all that Jinja has."""
    own: dict[str, Function] = {"join": _join, "replace": _replace, "indent": _indent, "tojson": _tojson}
    structural = {name: _metered(jinjas[name], has_text_cost=False) for name in STRUCTURAL}
    return {name: _metered(jinjas[name]) for name in TEXTUAL} | structural | own


def chat_tests(jinjas: Mapping[str, Any]) -> dict[str, Any]:
    """All of Jinja's, those that compare on the meter."""
    return {**jinjas, **{name: _metered(jinjas[name]) for name in COMPARING_TESTS}}


def _metered(function: Function, *, has_text_cost: bool = True) -> Function:
    @functools.wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:
        meter = METER.get()
        if has_text_cost:
            meter.charge_text(args)
        else:
            meter.charge(STEP_COST + sum(len(value) for value in args if isinstance(value, str | list | tuple | dict)))
        result = function(*args, **kwargs)
        if isinstance(result, str | list):
            meter.charge_text(result)
        return result

    return paid


def _join(items: Iterable[object], separator: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        raise SecurityError("join: write map(attribute=…) | join")
    return str(separator).join(map(str, paid_items(items, str(separator))))


def paid_items(items: Iterable[object], separator: str) -> list[object]:
    """What a text is joined of."""
    listed = list(items)
    METER.get().charge_text(listed)
    METER.get().charge(len(separator) * len(listed))
    return listed


def _replace(value: object, old: str, new: str, count: int = -1) -> str:
    METER.get().charge_text(value)
    text = str(value)
    METER.get().charge(len(text) + growth(text, old, new))
    return text.replace(old, new, count)


def growth(text: str, old: object = "", new: object = "") -> int:
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
    if separators and any(len(separator) > MAX_SEPARATOR for separator in separators):
        raise SecurityError(f"tojson: separators of at most {MAX_SEPARATOR} characters")
    width = None if indent is None else min(indent, MAX_INDENT)
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=width, separators=separators, sort_keys=sort_keys)
    METER.get().charge(len(text))
    return text
