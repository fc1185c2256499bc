"""Finds rules of a Lark grammar that never end, because they require themselves.

A model that reaches such a rule writes until its token limit. Only the syntax that this needs is parsed: rules of
names, texts, groups and repeats. The library judges everything else (`%json`, parameters, …).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_DEPTH = 50
MAX_PASSES = 50
_LITERAL = re.compile(r'"(?:[^"\\\n]|\\.)*"?i?|//[^\n]*|#[^\n]*|/(?:[^/\\\n]|\\.)+/?[a-z]*|<[^<>\n]*>')
"""Texts, regular expressions, comments, special tokens. An unclosed one ends with its line: searching for its end from
each of its characters would take quadratic time.
"""
_DIRECTIVE = re.compile(r"^[ \t]*%(?:import|ignore)\b[^\n]*", re.MULTILINE)
_DEFINITION = re.compile(r"^[ \t]*[!?]*([A-Za-z_][\w-]*)(?:\.-?\d+)?[ \t]*:(?!:)", re.MULTILINE)
_TOKEN = re.compile(r"([A-Za-z_][\w-]*)|([|()\[\]])|([+*?]|~ *\d+(?: *\.\. *\d+)?|\{[\d, ]*\})|\s+")
_MAY_BE_NONE = re.compile(r"[*?]|~ *0.*|\{ *(?:0|,).*", re.DOTALL)


class _UnknownSyntaxError(Exception):
    """Syntax that is not parsed here."""


@dataclass(slots=True)
class _Group:
    """Alternatives, each of which requires all of its rules and groups. Optional ones are left out."""

    alternatives: list[list[str | _Group]] = field(default_factory=lambda: [[]])

    def is_finite(self, endless: set[str]) -> bool:
        return any(
            all(part not in endless if isinstance(part, str) else part.is_finite(endless) for part in parts)
            for parts in self.alternatives
        )


@dataclass(frozen=True, slots=True)
class _Rule:
    body: _Group
    names: tuple[str, ...]
    """All rules that the body mentions."""


def find_endless_rule(source: str) -> str | None:
    """The first rule reachable from `start` that matches no text of finite length, or None."""
    plain = _LITERAL.sub(lambda found: "" if found[0].startswith(("//", "#")) else " TEXT ", source)
    plain = _DIRECTIVE.sub("", plain)
    definitions = list(_DEFINITION.finditer(plain))
    ends = [*(found.start() for found in definitions[1:]), len(plain)][: len(definitions)]
    bodies = {found[1]: plain[found.end() : end] for found, end in zip(definitions, ends, strict=True)}
    try:
        # The library judges terminals, whose names are in capitals.
        rules = {name: _read_rule(body) for name, body in bodies.items() if name != name.upper()}
    except _UnknownSyntaxError:
        return None
    endless = set(rules)
    for _ in range(MAX_PASSES):
        num_before = len(endless)
        for name in reversed(rules):
            if rules[name].body.is_finite(endless):
                endless.discard(name)
        if len(endless) == num_before:
            return next((name for name in _reachable(rules) if name in endless), None)
    return None


def _reachable(rules: dict[str, _Rule]) -> Iterator[str]:
    seen = {"start"}
    waiting = ["start"]
    while waiting:
        name = waiting.pop()
        if name in rules:
            yield name
            more = [other for other in rules[name].names if other not in seen]
            seen.update(more)
            waiting.extend(more)


def _read_rule(body: str) -> _Rule:
    names: dict[str, None] = {}
    groups = [_Group()]
    position = 0
    while position < len(body):
        found = _TOKEN.match(body, position)
        if found is None:
            raise _UnknownSyntaxError
        position = found.end()
        name, mark, repeat = found.groups()
        parts = groups[-1].alternatives[-1]
        if name:
            parts.append(name)
            names[name] = None
        elif mark == "|":
            groups[-1].alternatives.append([])
        elif mark and mark in "([":
            groups.append(_Group([[], []] if mark == "[" else [[]]))
        elif mark:
            _close_group(groups)
        elif repeat and parts and _MAY_BE_NONE.fullmatch(repeat):
            parts.pop()
        if len(groups) > MAX_DEPTH:
            raise _UnknownSyntaxError
    if len(groups) != 1:
        raise _UnknownSyntaxError
    return _Rule(groups[0], tuple(names))


def _close_group(groups: list[_Group]) -> None:
    closed = groups.pop()
    if not groups:
        raise _UnknownSyntaxError
    groups[-1].alternatives[-1].append(closed)
