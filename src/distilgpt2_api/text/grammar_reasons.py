"""Why a grammar can't be followed, for its author: the library's messages, which name its own parts, in plain words."""

from __future__ import annotations

import re

MAX_REASON_CHARACTERS = 200
_MATCHES_NOTHING = (
    "no text matches it: a part of it, such as [^\\\\s\\\\S] or a rule that is only itself, matches nothing"
)
_TOO_COMPLEX = "it is too complex to follow, or demands a text without end"
_REASONS = [
    (r"(?s)panic.*", "the vocabulary can't write it"),
    (r"(?s).*NoExtension.*", _MATCHES_NOTHING),
    (r"(?s).*(Too many items|TooComplex|too many states|too many lexer|fuel|limit exceeded|too big).*", _TOO_COMPLEX),
    (r"(?s).*recursion limit.*", "it is nested too deeply"),
    (r"(?s)Schema intersection stack level.*|schema too large.*", "its allOf, anyOf and $ref unfold to too much"),
    (r"(?s).*decimal literal invalid.*", "a count in it is too large"),
    (r"(?s)(.*)Regex is empty:.*", r"\1no string has its pattern, format and length"),
    (r"(?s)Unable to determine if regex is empty.*", "its pattern, format and length together are too complex"),
    (r"(?s)Failed to generate regex for (integer|float) range.*", r"its bounds are beyond what is supported (64 bits)"),
    (r"(?s)invalid multiple of.*", "'multipleOf' must be above 0"),
    (r"(?s)Unimplemented keys: \[(.*)\].*", r"its keyword \1 is not supported"),
    (
        r"(?s)oneOf constraints are not supported.*",
        "its oneOf is not supported: its schemas must differ by type or by a required property; or use anyOf",
    ),
    (r"(?s)Expected f64 for (.*)", r"expected a number for \1"),
    (r"(?s)(.*)Resource '(?:json-schema:///)?(.*)' is not present.*", r"\1its $ref '\2' is not within the schema"),
    (r"(?s).*hex escape.*", "it has a lone surrogate, which is no text"),
    (r"(?s)unknown field (.*)", r"x-guidance has an unknown field \1"),
    (r"(?s).*InternalError.*|<non-verbose/>.*", _TOO_COMPLEX),
]
"""The first pattern that fits the whole message, and what is said instead."""


def describe(message: str) -> str:
    """The library's reason in one short line: it may go on with the grammar itself, or with what it knows of it."""
    for pattern, reason in _REASONS:
        if found := re.fullmatch(pattern, message):
            message = found.expand(reason)
            break
    lines = message.splitlines() or [""]
    # Of a regular expression the library shows where the error is, then says it.
    reason = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    reason = re.sub(r"^(?:at )?(\d+)\((\d+)\): ", r"line \1, column \2: ", reason)
    shown = "".join(character if character.isprintable() else " " for character in reason)
    return shown if len(shown) <= MAX_REASON_CHARACTERS else f"{shown[:MAX_REASON_CHARACTERS]} …"
