"""Translates the grammar library's messages, which name its internals, into reasons for a grammar's author."""

import re

MAX_REASON_CHARACTERS = 200
_MATCHES_NOTHING = (
    "no text matches it: a part of it, such as [^\\\\s\\\\S] or a rule that is only itself, matches nothing"
)
_TOO_COMPLEX = "it is too complex to follow, or requires a text without end"
_REASONS = [
    (r"(?s)panic.*", "the vocabulary can't write it"),
    (r"(?s).*NoExtension.*", _MATCHES_NOTHING),
    (r"(?s).*(Too many items|TooComplex|too many states|too many lexer|fuel|limit exceeded|too big).*", _TOO_COMPLEX),
    (r"(?s).*recursion limit.*", "it is nested too deeply"),
    (r"(?s)Schema intersection stack level.*|schema too large.*", "its allOf, anyOf and $ref expand to too much"),
    (r"(?s).*decimal literal invalid.*", "a count in it is too large"),
    (r"(?s)(.*)Regex is empty:.*", r"\1no string has its pattern, format and length"),
    (r"(?s)Unable to determine if regex is empty.*", "its pattern, format and length together are too complex"),
    (r"(?s)Failed to generate regex for (integer|float) range.*", r"its bounds exceed 64 bits"),
    (r"(?s)invalid multiple of.*", "'multipleOf' must be above 0"),
    (r"(?s)Unimplemented keys: \[(.*)\].*", r"its keyword \1 is not supported"),
    (
        r"(?s)oneOf constraints are not supported.*",
        "its oneOf is not supported: its schemas must differ by type or by a required property; or use anyOf",
    ),
    (r"(?s)Expected f64 for (.*)", r"expected a number for \1"),
    (r"(?s)(.*)Resource '(?:json-schema:///)?(.*)' is not present.*", r"\1its $ref '\2' is not within the schema"),
    (r"(?s).*hex escape.*", "it has a lone surrogate, which is not valid Unicode"),
    (r"(?s)unknown field (.*)", r"x-guidance has an unknown field \1"),
    (r"(?s).*InternalError.*|<non-verbose/>.*", _TOO_COMPLEX),
]
"""Patterns for a whole message, each with its replacement. The first that matches is used."""


def describe(message: str) -> str:
    """The library's reason in one short line, without the grammar and internals that its message may go on with."""
    for pattern, reason in _REASONS:
        if found := re.fullmatch(pattern, message):
            message = found.expand(reason)
            break
    lines = message.splitlines() or [""]
    # For a regular expression the library first shows where the error is, then names it.
    reason = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    reason = re.sub(r"^(?:at )?(\d+)\((\d+)\): ", r"line \1, column \2: ", reason)
    shown = "".join(character if character.isprintable() else " " for character in reason)
    return shown if len(shown) <= MAX_REASON_CHARACTERS else f"{shown[:MAX_REASON_CHARACTERS]} …"
