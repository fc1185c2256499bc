"""A grammar that constrains a completion's text."""

from dataclasses import dataclass, field
from enum import StrEnum


class GrammarKind(StrEnum):
    """The language of `Grammar.source`."""

    JSON_SCHEMA = "json_schema"
    """A JSON Schema, as JSON. Any JSON object is the schema `{"type": "object"}`."""
    REGEX = "regex"
    """A regular expression that the whole text matches."""
    LARK = "lark"
    """A context-free grammar in llguidance's dialect of Lark. A choice between texts is written as one."""
    GBNF = "gbnf"
    """A context-free grammar in llama.cpp's notation, or in xgrammar's EBNF."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """Hashable, so that equal grammars are compiled once."""

    kind: GrammarKind
    source: str
    compiled: object = field(default=None, compare=False, repr=False)
    """The compiled grammar, an object of the compiler's, set by its check. Keeping it here means that the request is
    not compiled again if the compiler's cache evicts it."""
