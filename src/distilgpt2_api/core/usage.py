"""Usage of API keys: what was served and refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    num_requests: int = 0
    """Requests that the engine admitted, including lines of batches."""
    num_prompt_tokens: int = 0
    """As in the answers' `usage`: a prompt counts once, however many completions it gets."""
    num_completion_tokens: int = 0
    num_refusals: int = 0
    """Requests refused with 429 or 503."""

    @property
    def num_tokens(self) -> int:
        return self.num_prompt_tokens + self.num_completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            num_requests=self.num_requests + other.num_requests,
            num_prompt_tokens=self.num_prompt_tokens + other.num_prompt_tokens,
            num_completion_tokens=self.num_completion_tokens + other.num_completion_tokens,
            num_refusals=self.num_refusals + other.num_refusals,
        )


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyUsage:
    """One key's usage on one day."""

    key: str
    """The key's name."""
    day: date
    """In UTC."""
    usage: Usage
    last_used_s: float
    """Unix time of the key's last request on that day."""

    @classmethod
    def from_columns(cls, columns: Iterable[Any]) -> Self:
        """As `columns` gives them. Raises ValueError if the day is none."""
        key, day, num_requests, num_prompt_tokens, num_completion_tokens, num_refusals, last_used_s = columns
        usage = Usage(
            num_requests=num_requests,
            num_prompt_tokens=num_prompt_tokens,
            num_completion_tokens=num_completion_tokens,
            num_refusals=num_refusals,
        )
        return cls(key=key, day=date.fromisoformat(day), usage=usage, last_used_s=last_used_s)

    @property
    def columns(self) -> tuple[str, str, int, int, int, int, float]:
        """As stores and journals have a row: the key, the day in ISO 8601, four counts, the last use."""
        usage = self.usage
        counts = (usage.num_requests, usage.num_prompt_tokens, usage.num_completion_tokens, usage.num_refusals)
        return (self.key, self.day.isoformat(), *counts, self.last_used_s)

    def __add__(self, other: DailyUsage) -> DailyUsage:
        assert (self.key, self.day) == (other.key, other.day)
        return DailyUsage(
            key=self.key,
            day=self.day,
            usage=self.usage + other.usage,
            last_used_s=max(self.last_used_s, other.last_used_s),
        )


class Account(Protocol):
    """One request's access to the usage of its key."""

    def reserve(self, num_tokens: int) -> None:
        """Reserve tokens of the key's budgets for this request.

        Raises BudgetError if too few are left, InvalidRequestError if a budget never has that many.
        """

    def settle(self, usage: Usage) -> None:
        """The request has ended with this usage. Ends its reservation."""
