"""Answers the lines of batches: each line is an in-process request of the batch's caller."""

import logging
import uuid
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from distilgpt2_api.batch.lines import Answer, InputLine
from distilgpt2_api.batch.store.ports import AskLine
from distilgpt2_api.core.caller import Caller
from distilgpt2_api.core.usage import Account
from distilgpt2_api.engine.async_engine import AsyncEngine
from distilgpt2_api.observability.request_record import RequestRecord
from distilgpt2_api.server.http.errors import INTERNAL
from distilgpt2_api.server.http.in_process import post
from distilgpt2_api.server.protocols.openai.errors import OPENAI_ERRORS, raise_refusal

logger = logging.getLogger(__name__)


def line_asker(app: ASGIApp, engine: AsyncEngine, open_account: Callable[[str], Account | None]) -> AskLine:
    """A handler that sends a line to its route. A refusal is not an answer, so it becomes UnavailableError.

    `open_account` returns the account of a caller.
    """

    async def ask(caller: str, line: InputLine) -> Answer:
        await engine.wait_loaded()
        request_id = uuid.uuid4().hex
        record = RequestRecord(
            request_id=request_id, caller=Caller(name=caller, is_batch=True), account=open_account(caller)
        )

        async def ask_with_record(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = {"request_record": record}
            await app(scope, receive, send)

        try:
            answer = await post(ask_with_record, line.url, line.body)
        except Exception:
            logger.exception("a line of a batch failed", extra={"request_id": request_id})
            return Answer(status_code=INTERNAL.status, request_id=request_id, body=OPENAI_ERRORS.body(INTERNAL))
        finally:
            record.settle()
        raise_refusal(answer, final={})
        return Answer(status_code=answer.status, request_id=request_id, body=answer.body)

    return ask
