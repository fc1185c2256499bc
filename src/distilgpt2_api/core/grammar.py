"""What a completion's text must be: the word between the doors, which read it, and the engine, which holds to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class GrammarKind(StrEnum):
    """How `Grammar.source` is written."""

    JSON_SCHEMA = "json_schema"
    """A JSON Schema, as JSON. Any JSON object is the schema `{"type": "object"}`."""
    REGEX = "regex"
    """A regular expression that the whole text matches."""
    LARK = "lark"
    """A context-free grammar in llguidance's dialect of Lark. Choices between texts are one."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """Hashable: equal grammars are compiled once."""

    kind: GrammarKind
    source: str
    compiled: object = field(default=None, compare=False, repr=False)
    """What the compiler made of it, once it was checked: the compiler's own. So no request waits for it again, whatever
    the compiler has forgotten meanwhile."""
