"""Budgets: tokens that a key may use in a day or month, in UTC."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum

from distilgpt2_api.core.caller import CallerLimits
from distilgpt2_api.core.errors import BudgetError, InvalidRequestError
from distilgpt2_api.core.usage import NO_USAGE, Usage
from distilgpt2_api.usage.ledger import UsageLedger


class Period(StrEnum):
    DAY = "day"
    MONTH = "month"

    def start(self, now: datetime) -> date:
        """The first day of the present period."""
        return now.date() if self is Period.DAY else now.date().replace(day=1)

    def end(self, now: datetime) -> datetime:
        """When the next one begins."""
        start = self.start(now)
        after = start + timedelta(days=1) if self is Period.DAY else (start + timedelta(days=31)).replace(day=1)
        return datetime.combine(after, time(), UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    period: Period
    max_tokens: int
    num_used: int
    """Tokens used in the present period, and reserved by requests in flight."""
    end: datetime
    """When the next period begins."""


def budgets_of(key: str, limits: CallerLimits, ledger: UsageLedger) -> Sequence[Budget]:
    now = ledger.now()
    bounds = ((Period.DAY, limits.tokens_per_day), (Period.MONTH, limits.tokens_per_month))
    return [
        Budget(
            period=period,
            max_tokens=max_tokens,
            num_used=ledger.num_tokens(key, since=period.start(now)),
            end=period.end(now),
        )
        for period, max_tokens in bounds
        if max_tokens is not None
    ]


class KeyAccount:
    """An `Account`: one request of a key. Mutable: the tokens that it has reserved. Event loop only."""

    def __init__(self, key: str, limits: CallerLimits, ledger: UsageLedger, *, on_budget: Callable[[], None]) -> None:
        """`on_budget` is called if a budget applies to the request."""
        self._key = key
        self._limits = limits
        self._ledger = ledger
        self._on_budget = on_budget
        self._num_reserved = 0

    def reserve(self, num_tokens: int) -> None:
        budgets = budgets_of(self._key, self._limits, self._ledger)
        if budgets:
            self._on_budget()
        for budget in budgets:
            _check(budget, num_tokens, self._ledger.now())
        self._ledger.reserve(self._key, num_tokens)
        self._num_reserved += num_tokens

    def settle(self, usage: Usage) -> None:
        self._ledger.reserve(self._key, -self._num_reserved)
        self._num_reserved = 0
        if usage != NO_USAGE:
            self._ledger.add(self._key, usage)


def _check(budget: Budget, num_tokens: int, now: datetime) -> None:
    bound = f"{budget.max_tokens} tokens a {budget.period}"
    if num_tokens > budget.max_tokens:
        raise InvalidRequestError(
            f"the request needs up to {num_tokens} prompt and completion tokens; your budget is {bound}: ask for fewer"
        )
    if budget.num_used + num_tokens > budget.max_tokens:
        raise BudgetError(
            f"you have used or reserved {budget.num_used} tokens of your budget of {bound}, and this request needs up"
            f" to {num_tokens}; the next {budget.period} begins at {budget.end:%Y-%m-%dT%H:%M:%SZ}",
            retry_after_s=(budget.end - now).total_seconds(),
        )
