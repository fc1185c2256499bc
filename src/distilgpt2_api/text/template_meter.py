"""The work of rendering a chat template, on a meter."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

STEP_COST = 16
"""Of a loop's turn or of a call, where a character costs 1: about what they cost in time."""


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
