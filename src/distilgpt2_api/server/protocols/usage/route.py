"""`GET /v1/usage`."""

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request

from distilgpt2_api.core.errors import InvalidRequestError, NotFoundError
from distilgpt2_api.core.usage import DailyUsage, Usage
from distilgpt2_api.server.http.errors import NotEnabledError
from distilgpt2_api.server.http.requests.record import request_record
from distilgpt2_api.server.http.routing.protocol import Protocol
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS
from distilgpt2_api.server.protocols.usage.schema import DayCounts, KeyBudget, KeyUsageReport, UsageList, UsageQuery
from distilgpt2_api.server.schema.query import checked_router
from distilgpt2_api.server.service import ServiceDep
from distilgpt2_api.usage.key_usage import KeyUsage

router = checked_router("Usage")


@router.get("/v1/usage", summary="Usage of API keys", responses=OPENAI_ERRORS.responses(400, 404, 503))
async def read_usage(http: Request, service: ServiceDep, query: Annotated[UsageQuery, Query()]) -> UsageList:
    """The requesting key's own usage; with a key that the setting `operator_keys` names, that of every key."""
    usage = service.usage
    if usage is None:
        raise NotEnabledError(
            "usage is counted per API key, and this service has no API keys; see the setting api_keys"
        )
    now = usage.ledger.now()
    first = query.start_date or now.date().replace(day=1)
    last = query.end_date or max(first, now.date())
    if last < first:
        raise InvalidRequestError(f"end_date is {last}, before start_date, {first}", param="end_date")
    caller = request_record(http.scope).caller.name
    rows = {key: [*days] for key, days in groupby(await usage.read(first, last), key=attrgetter("key"))}
    names = sorted({*rows, *usage.key_names}) if caller in service.access.operators else [caller]
    if query.key is not None:
        if query.key not in names:  # the same answer whether or not there is such a key
            raise NotFoundError(f"there is no key {query.key!r} whose usage your key may read", param="key")
        names = [query.key]
    reports = [_report(name, rows.get(name, []), usage) for name in names]
    return UsageList(start_date=first, end_date=last, data=reports)


def _report(key: str, rows: Sequence[DailyUsage], usage: KeyUsage) -> KeyUsageReport:
    return KeyUsageReport(
        key=key,
        last_used_at=max((int(row.last_used_s) for row in rows), default=None),
        days=[DayCounts(date=row.day, **_counts(row.usage)) for row in rows],
        budgets=[
            KeyBudget(
                period=budget.period.value,
                max_tokens=budget.max_tokens,
                used_tokens=budget.num_used,
                remaining_tokens=max(0, budget.max_tokens - budget.num_used),
                resets_at=int(budget.end.timestamp()),
            )
            for budget in usage.budgets_of(key)
        ],
        **_counts(sum((row.usage for row in rows), Usage())),
    )


def _counts(usage: Usage) -> dict[str, Any]:
    return {
        "requests": usage.num_requests,
        "prompt_tokens": usage.num_prompt_tokens,
        "completion_tokens": usage.num_completion_tokens,
        "total_tokens": usage.num_tokens,
        "refusals": usage.num_refusals,
    }


USAGE = Protocol(routes=router.routes, errors=OPENAI_ERRORS)
