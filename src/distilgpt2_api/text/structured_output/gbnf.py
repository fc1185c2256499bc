"""Translates GBNF, llama.cpp's notation of grammars, to llguidance's dialect of Lark.

A rule that does not need itself becomes a terminal, one regular expression, so that the lexer does not choose between
its parts. xgrammar's EBNF is the same notation, as far as it is supported here.
"""

import json
from collections.abc import Iterator, Mapping

from distilgpt2_api.text.structured_output.gbnf_parser import (
    CharacterClass,
    Choice,
    GbnfParser,
    Literal,
    Node,
    Reference,
    Repetition,
    Sequence,
)

ROOT = "root"
MAX_RULES = 512


def to_lark(source: str) -> str:
    """The same grammar in Lark. Raises ValueError, with the line at fault."""
    try:
        rules = GbnfParser(source).parse()
        return "\n".join(_Translator(rules).lines())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


class _Translator:
    """The rules, by what they become in Lark."""

    def __init__(self, rules: Mapping[str, Node]) -> None:
        """Raises ValueError for a rule that is not defined."""
        if ROOT not in rules:
            raise ValueError(f"it has no rule named {ROOT!r}")
        if len(rules) > MAX_RULES:
            raise ValueError(f"it has {len(rules)} rules; at most {MAX_RULES} are translated")
        self._rules = rules
        self._numbers = {name: number for number, name in enumerate(rules)}
        needed = {name: set(_references(node)) for name, node in rules.items()}
        if missing := sorted(set().union(*needed.values()) - rules.keys()):
            raise ValueError(f"the rule {missing[0]!r} is not defined")
        self._recursive = _find_recursive(needed)
        """Rules that need themselves, or a rule that does: no regular expression can say what they match."""
        self._nullable = self._find_nullable(needed)
        self._splits = {name: self._split(node) for name, node in rules.items()}

    def lines(self) -> Iterator[str]:
        is_regular = ROOT not in self._recursive and ROOT not in self._nullable
        yield f"start: {f'T{self._numbers[ROOT]}' if is_regular else self._refer(ROOT)}"
        for name, node in self._rules.items():
            number, (core, tail) = self._numbers[name], self._splits[name]
            if name not in self._recursive:
                yield f"T{number}: {self._write(node, is_terminal=True)}"
            if name in self._recursive or core is None:
                yield f"r{number}: {self._write(node, is_terminal=False)}"
            elif tail:
                yield f"C{number}: {self._write(core, is_terminal=True)}"
                yield f"r{number}: C{number} {self._write(Sequence(tail), is_terminal=False)}"

    def _refer(self, name: str, *, is_terminal: bool = False) -> str:
        core, tail = self._splits[name]
        is_rule = name in self._recursive or core is None or bool(tail)
        return f"{'r' if is_rule and not is_terminal else 'T'}{self._numbers[name]}"

    def _split(self, node: Node) -> tuple[Node | None, tuple[Node, ...]]:
        """The beginning of a node, which is not empty, and the parts after it that may be. None: the node may be empty.

        A terminal takes as many characters as it can, so those that may be left out, such as white space at the end,
        are no part of it: the next element may need them.
        """
        if self._is_nullable(node):
            return None, ()
        if not isinstance(node, Sequence):
            return node, ()
        num_kept = max(index for index, part in enumerate(node.parts, 1) if not self._is_nullable(part))
        return Sequence(node.parts[:num_kept]), node.parts[num_kept:]

    def _find_nullable(self, needed: Mapping[str, set[str]]) -> set[str]:
        """Rules that match the empty text."""
        needed_by = _inverted(needed)
        self._nullable = set()
        pending = [*self._rules]
        while pending:
            name = pending.pop()
            if name not in self._nullable and self._is_nullable(self._rules[name]):
                self._nullable.add(name)
                pending += needed_by[name]
        return self._nullable

    def _write(self, node: Node, *, is_terminal: bool) -> str:
        match node:
            case Literal(text):
                return json.dumps(text, ensure_ascii=False)
            case CharacterClass(ranges, is_negated):
                items = "".join(f"\\x{{{first:X}}}-\\x{{{last:X}}}" for first, last in ranges)
                return f"/[{'^' if is_negated else ''}{items}]/"
            case Reference(name):
                return self._refer(name, is_terminal=is_terminal)
            case Sequence(parts):
                return " ".join(self._write_part(part, is_terminal) for part in parts) or '""'
            case Choice(options):
                return "(" + " | ".join(self._write(option, is_terminal=is_terminal) for option in options) + ")"
            case Repetition(part, least, most):
                return self._write_part(part, is_terminal) + f"{{{least},{'' if most is None else most}}}"

    def _write_part(self, node: Node, is_terminal: bool) -> str:
        written = self._write(node, is_terminal=is_terminal)
        return f"({written})" if isinstance(node, Sequence | Repetition) else written

    def _is_nullable(self, node: Node) -> bool:
        match node:
            case Literal(text):
                return not text
            case CharacterClass():
                return False
            case Reference(name):
                return name in self._nullable
            case Sequence(parts):
                return all(map(self._is_nullable, parts))
            case Choice(options):
                return any(map(self._is_nullable, options))
            case Repetition(part, least, _):
                return least == 0 or self._is_nullable(part)


def _find_recursive(needed: Mapping[str, set[str]]) -> set[str]:
    """All rules but those that need only rules that are not recursive."""
    needed_by, num_open = _inverted(needed), {name: len(others) for name, others in needed.items()}
    pending = [name for name, count in num_open.items() if not count]
    recursive = set(needed)
    while pending:
        name = pending.pop()
        recursive.remove(name)
        for other in needed_by[name]:
            num_open[other] -= 1
            if not num_open[other]:
                pending.append(other)
    return recursive


def _inverted(needed: Mapping[str, set[str]]) -> dict[str, list[str]]:
    needed_by: dict[str, list[str]] = {name: [] for name in needed}
    for name, others in needed.items():
        for other in others:
            needed_by[other].append(name)
    return needed_by


def _references(node: Node | None) -> Iterator[str]:
    match node:
        case Reference(name):
            yield name
        case Sequence(parts) | Choice(parts):
            for part in parts:
                yield from _references(part)
        case Repetition(part, _, _):
            yield from _references(part)
