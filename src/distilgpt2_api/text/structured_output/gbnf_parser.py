"""Parses GBNF, llama.cpp's notation of grammars: `grammars/README.md` of llama.cpp."""

import re
from dataclasses import dataclass

MAX_CODE_POINT = 0x10FFFF
MAX_REPETITIONS = 10_000
NAME = re.compile(r"[A-Za-z0-9_-]+")
BLANK = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
BLANK_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
LINE_END = re.compile(r"\r?\n|\Z")
COUNTS = re.compile(r"\{[ \t]*([0-9]{1,6})[ \t]*(?:(,)[ \t]*([0-9]{1,6})?[ \t]*)?\}")
ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([trn\\\"\[\]]))")
PLAIN_ESCAPES = {"t": "\t", "r": "\r", "n": "\n"}


@dataclass(frozen=True, slots=True)
class Literal:
    text: str


@dataclass(frozen=True, slots=True)
class CharacterClass:
    ranges: tuple[tuple[int, int], ...]
    """Code points, both ends included."""
    is_negated: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    name: str


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    options: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    part: "Node"
    least: int
    most: int | None


Node = Literal | CharacterClass | Reference | Sequence | Choice | Repetition


class GbnfParser:
    """Mutable: the position in the source."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0

    def parse(self) -> dict[str, Node]:
        """The rules by name. Raises ValueError, which names the line, and RecursionError."""
        rules: dict[str, Node] = {}
        self._skip(BLANK_LINES)
        while self._at < len(self._source):
            name = self._match(NAME)
            if name is None:
                raise self._error("a rule must begin with its name")
            self._skip(BLANK)
            self._expect("::=")
            self._skip(BLANK_LINES)
            if name[0] in rules:
                raise self._error(f"the rule {name[0]!r} is defined twice")
            rules[name[0]] = self._choice(is_nested=False)
            if self._match(LINE_END) is None:
                raise self._error(f"{self._source[self._at]!r} is not expected")
            self._skip(BLANK_LINES)
        return rules

    def _choice(self, *, is_nested: bool) -> Node:
        options = [self._sequence(is_nested=is_nested)]
        while self._source.startswith("|", self._at):
            self._at += 1
            self._skip(BLANK_LINES)
            options.append(self._sequence(is_nested=is_nested))
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self, *, is_nested: bool) -> Node:
        parts: list[Node] = []
        while (part := self._part()) is not None:
            parts.append(part)
            self._skip(BLANK_LINES if is_nested else BLANK)
            while (counts := self._counts()) is not None:
                parts[-1] = Repetition(parts[-1], *counts)
                self._skip(BLANK_LINES if is_nested else BLANK)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _part(self) -> Node | None:
        """The next element of a sequence. None: the sequence ends."""
        match self._source[self._at : self._at + 1]:
            case '"':
                self._at += 1
                return self._literal()
            case "[":
                self._at += 1
                return self._character_class()
            case "(":
                self._at += 1
                self._skip(BLANK_LINES)
                part = self._choice(is_nested=True)
                self._expect(")")
                return part
            case ".":
                self._at += 1
                return CharacterClass(((0, MAX_CODE_POINT),))
        name = self._match(NAME)
        return None if name is None else Reference(name[0])

    def _literal(self) -> Literal:
        text: list[str] = []
        while not self._source.startswith('"', self._at):
            text.append(self._character('"'))
        self._at += 1
        return Literal("".join(text))

    def _character_class(self) -> CharacterClass:
        is_negated = self._source.startswith("^", self._at)
        self._at += is_negated
        ranges: list[tuple[int, int]] = []
        while not self._source.startswith("]", self._at):
            first = last = ord(self._character("]"))
            if self._source.startswith("-", self._at) and not self._source.startswith("-]", self._at):
                self._at += 1
                last = ord(self._character("]"))
            if last < first:
                raise self._error("the range of characters is empty")
            ranges.append((first, last))
        self._at += 1
        if not ranges:
            raise self._error("a class needs at least one character")
        return CharacterClass(tuple(ranges), is_negated)

    def _character(self, end: str) -> str:
        character = self._source[self._at : self._at + 1]
        if character in {"", "\r", "\n"}:
            raise self._error(f"{end!r} is missing")
        if character != "\\":
            self._at += 1
            return character
        escape = self._match(ESCAPE)
        if escape is None:
            raise self._error(f"unknown escape: {self._source[self._at : self._at + 2]!r}")
        code = escape[1] or escape[2] or escape[3]
        if code is None:
            return PLAIN_ESCAPES.get(escape[4], escape[4])
        if int(code, 16) > MAX_CODE_POINT or 0xD800 <= int(code, 16) <= 0xDFFF:
            raise self._error(f"{escape[0]!r} is no character")
        return chr(int(code, 16))

    def _counts(self) -> tuple[int, int | None] | None:
        """The least and the most repetitions that follow. None: no repetition."""
        symbol = self._source[self._at : self._at + 1]
        if symbol and symbol in "*+?":
            self._at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[symbol]
        if symbol != "{":
            return None
        counts = self._match(COUNTS)
        if counts is None:
            raise self._error("a repetition must be {m}, {m,} or {m,n}")
        least = int(counts[1])
        most = least if counts[2] is None else None if counts[3] is None else int(counts[3])
        if most is not None and most < least:
            raise self._error(f"the repetition {counts[0]} is empty")
        if max(least, most or 0) > MAX_REPETITIONS:
            raise self._error(f"the repetition {counts[0]} is over {MAX_REPETITIONS}")
        return least, most

    def _expect(self, text: str) -> None:
        if not self._source.startswith(text, self._at):
            raise self._error(f"{text!r} is missing")
        self._at += len(text)

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._source, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._match(pattern)

    def _error(self, message: str) -> ValueError:
        return ValueError(f"line {self._source.count(chr(10), 0, self._at) + 1}: {message}")
