"""Query and answer of `GET /v1/usage`: our own protocol, in OpenAI's style."""

from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from distilgpt2_api.server.schema.deferred_model import DeferredModel


class UsageQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=False)

    start_date: date | None = Field(None, description="First day, in UTC. Default: the first of this month.")
    end_date: date | None = Field(None, description="Last day, in UTC. Default: today.")
    key: str | None = Field(
        None, min_length=1, max_length=64, description="Name of one key. Default: all keys that the request may read."
    )


class Counts(DeferredModel):
    requests: int = Field(description="Requests that the engine admitted, including lines of batches.")
    prompt_tokens: int = Field(description="As in the answers' `usage`.")
    completion_tokens: int
    total_tokens: int
    refusals: int = Field(description="Requests refused with 429 or 503.")


class DayCounts(Counts):
    date: date


class KeyBudget(DeferredModel):
    period: Literal["day", "month"]
    max_tokens: int
    used_tokens: int = Field(description="In the present period, with what requests in flight may still use.")
    remaining_tokens: int
    resets_at: int = Field(description="When the next period begins: Unix time, in seconds.")


class KeyUsageReport(Counts):
    """One key's usage of the queried days."""

    object: Literal["usage"] = "usage"
    key: str = Field(description="The key's name.")
    last_used_at: int | None = Field(
        description="Unix time of the last request in the queried days, in seconds. Null: there was none."
    )
    days: list[DayCounts] = Field(description="The days with requests, in order.")
    budgets: list[KeyBudget] = Field(description="The key's present budgets. Empty: it has none.")


class UsageList(DeferredModel):
    """A list as in OpenAI's API: one object per key."""

    object: Literal["list"] = "list"
    start_date: date
    end_date: date
    data: list[KeyUsageReport]
