"""A worker of the cluster: the whole service in one process, which answers groups of lines."""

from __future__ import annotations

import asyncio
import pickle
import threading
from contextlib import AsyncExitStack

import pyarrow as pa
from ray.util import get_node_ip_address

from distilgpt2_api.batch.files.cluster_pipe import Frame, FrameKind
from distilgpt2_api.batch.files.formats import Format
from distilgpt2_api.batch.files.line_output import LineHandler, answer_line
from distilgpt2_api.batch.files.pending_lines import PendingLine
from distilgpt2_api.core.errors import Distilgpt2ApiError
from distilgpt2_api.local_service import open_service
from distilgpt2_api.scale_out.ray_batch.line_groups import LineGroup, block_of, contents_of
from distilgpt2_api.settings import Settings


class LineAnswerer:
    """Owns a thread with the service's event loop. Called by many threads at once, each with one group.

    If the service can't start, the error is returned instead of answers: from here Ray would show a traceback.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="lines", daemon=True).start()
        self._running = AsyncExitStack()
        self._handle_line: LineHandler | None = None
        self._failure = ""
        try:
            self._handle_line = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        except Distilgpt2ApiError as error:
            self._failure = str(error)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Takes and returns blocks of one row: a pickled LineGroup in, frames out."""
        (content,) = contents_of(block)
        group: LineGroup = pickle.loads(content)  # noqa: S301 - from our own reader; Ray pickles too
        return block_of(asyncio.run_coroutine_threadsafe(self._answer(group), self._loop).result())

    async def _open(self) -> LineHandler:
        return await self._running.enter_async_context(open_service(Settings()))

    async def _answer(self, group: LineGroup) -> bytes:
        if group.failure is not None:
            return _refused(group.failure)
        if self._handle_line is None:
            return self._failed(self._failure)
        answers = [self._frame(one, group.file_format, self._handle_line) for one in group.lines]
        try:
            return b"".join(await asyncio.gather(*answers))
        except Distilgpt2ApiError as error:
            return self._failed(str(error))

    async def _frame(self, one: PendingLine, file_format: Format, handle_line: LineHandler) -> bytes:
        line_output = await answer_line(one, file_format, handle_line)
        return Frame(
            kind=FrameKind.FAILED if line_output.is_failed else FrameKind.ANSWERED,
            position=one.position,
            num_bytes=line_output.num_bytes,
            content=line_output.content,
        ).to_bytes()

    def _failed(self, why: str) -> bytes:
        return _refused(f"a worker on node {get_node_ip_address()} can't answer: {why}")


def _refused(why: str) -> bytes:
    return Frame(kind=FrameKind.REFUSED, content=why.encode()).to_bytes()
