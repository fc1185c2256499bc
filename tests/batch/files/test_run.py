"""Lines in flight: each is written once and in order, and a stop at any moment loses none."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.batch.custom_ids import CustomIds
from distilgpt2_api.batch.errors import BatchFileError
from distilgpt2_api.batch.files.formats import JsonLines
from distilgpt2_api.batch.files.input_file import InputFile
from distilgpt2_api.batch.files.line_ids import CompletedLines
from distilgpt2_api.batch.files.line_output import LineOutput
from distilgpt2_api.batch.files.ordered_writer import OrderedWriter
from distilgpt2_api.batch.files.output_file import OutputFile
from distilgpt2_api.batch.files.recovery import ResumeState, recover
from distilgpt2_api.batch.files.run import Run
from distilgpt2_api.batch.lines import Answer, InputLine
from distilgpt2_api.core.errors import DrainingError, EngineFailedError, NotReadyError, OverloadedError

BAD = b"{\n"


def answer_to(line: InputLine, *, status_code: int = 200) -> Answer:
    text = json.loads(line.body)["prompt"].upper()
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    body = {"choices": [{"text": text, "finish_reason": "stop"}], "usage": usage}
    return Answer(status_code=status_code, request_id="r", body=json.dumps(body).encode())


@dataclass
class Executor:
    """Answers lines by hand: each waits until it is released."""

    waiting: dict[str, asyncio.Future[int]] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)

    async def __call__(self, line: InputLine) -> Answer:
        self.begun.append(line.custom_id)
        self.waiting[line.custom_id] = asyncio.get_running_loop().create_future()
        return answer_to(line, status_code=await self.waiting[line.custom_id])

    async def let_go(self, *custom_ids: str, status_code: int = 200) -> None:
        for custom_id in custom_ids:
            self.waiting.pop(custom_id).set_result(status_code)
            await settle()


async def settle() -> None:
    """Lets all tasks run that don't wait for the executor."""
    for _ in range(20):
        await asyncio.sleep(0)


async def at_once(line: InputLine) -> Answer:
    return answer_to(line)


@dataclass
class Batch:
    """An input and its two output files, which can be opened repeatedly."""

    source: InputFile
    folder: Path

    def run(
        self,
        play: Callable[[Run], Awaitable[None]],
        handle_line: Any = at_once,
        *,
        is_ordered: bool = True,
        on_written: Callable[[LineOutput], None] = lambda _: None,
        **options: Any,
    ) -> ResumeState:
        """Returns what remained before the run."""
        with ExitStack() as stack:
            files: dict[str, Any] = {}
            for name, file_format in (("output", self.source.format), ("errors", JsonLines())):
                files[name] = OutputFile(self.folder / name, file_format=file_format)
                stack.callback(files[name].close)
            completed = stack.enter_context(CompletedLines())
            custom_ids = stack.enter_context(CustomIds())
            state = recover(self.source, completed=completed, **files)
            writer = OrderedWriter(**files, is_ordered=is_ordered, on_written=on_written)

            async def main() -> None:
                await play(
                    Run(
                        self.source,
                        writer=writer,
                        completed=completed,
                        custom_ids=custom_ids,
                        handle_line=handle_line,
                        **options,
                    )
                )

            asyncio.run(main())
        return state

    def finish(self, handle_line: Any = at_once, *, max_in_flight: int = 4, **options: Any) -> ResumeState:
        return self.run(lambda run: run.finish(max_in_flight=max_in_flight), handle_line, **options)

    def lines(self, name: str) -> Iterator[Any]:
        yield from (json.loads(line) for line in (self.folder / name).read_bytes().splitlines())

    @property
    def answered(self) -> list[str]:
        """The custom ids in the output's order. Checks that each has the answer to its own prompt."""
        lines = list(self.lines("output"))
        assert all(
            line["response"]["body"]["choices"][0]["text"] == line["custom_id"].upper() and line["error"] is None
            for line in lines
        )
        return [line["custom_id"] for line in lines]

    @property
    def failed(self) -> list[tuple[str | None, Any]]:
        return [
            (line["custom_id"], (line["error"] or {}).get("code") or line["response"]["status_code"])
            for line in self.lines("errors")
        ]


@pytest.fixture
def build_batch(open_input: Callable[..., InputFile], tmp_path: Path) -> Callable[..., Batch]:
    def build(content: bytes, **options: Any) -> Batch:
        return Batch(open_input(content, **options), tmp_path)

    return build


def begin(run: Run, **options: Any) -> asyncio.Task[None]:
    return asyncio.create_task(run.finish(**options))


def test_answers_are_written_in_the_order_of_the_input(build_batch: Any, requests: Any) -> None:
    batch, handle_line = build_batch(requests("abcde")), Executor()

    async def play(run: Run) -> None:
        task = begin(run, max_in_flight=3)
        await settle()
        assert handle_line.begun == ["a", "b", "c"]
        await handle_line.let_go("c", "b")
        assert (batch.answered, handle_line.begun) == ([], ["a", "b", "c", "d", "e"])
        await handle_line.let_go("a")
        assert batch.answered == ["a", "b", "c"]
        await handle_line.let_go("e", "d")
        await task

    batch.run(play, handle_line)
    assert batch.answered == ["a", "b", "c", "d", "e"]


def test_unordered_answers_are_written_immediately(build_batch: Any, requests: Any) -> None:
    batch, handle_line = build_batch(requests("abc")), Executor()

    async def play(run: Run) -> None:
        task = begin(run, max_in_flight=3)
        await settle()
        await handle_line.let_go("c")
        assert batch.answered == ["c"]
        await handle_line.let_go("a", "b")
        await task

    batch.run(play, handle_line, is_ordered=False)
    assert batch.answered == ["c", "a", "b"]


def test_the_input_is_read_no_further_than_needed(build_batch: Any, requests: Any) -> None:
    """Only the lines in flight, plus as many as fit into the limit on waiting answers."""
    letters = [f"p{index}" for index in range(100)]
    batch, handle_line = build_batch(requests(letters)), Executor()

    async def play(run: Run) -> None:
        task = begin(run, max_in_flight=4)
        await settle()
        assert len(handle_line.begun) == 4
        while len(handle_line.waiting) > 1:
            await handle_line.let_go(list(handle_line.waiting)[-1])
        assert (list(handle_line.waiting), len(handle_line.begun)) == (["p0"], 14)
        await handle_line.let_go("p0")
        assert len(handle_line.begun) == 18
        while handle_line.waiting:
            await handle_line.let_go(next(iter(handle_line.waiting)))
        await task

    # An output line has 200 to 250 bytes.
    batch.run(play, handle_line, max_held_bytes=2400)
    assert batch.answered == letters


def test_memory_does_not_grow_with_the_file(build_batch: Any, requests: Any) -> None:
    """Five megabytes of input and more of output; one custom id is a duplicate."""
    prompts = [f"{index} {'x' * 450}" for index in range(5_000)]
    batch = build_batch(requests(prompts) + requests(prompts[:1]))
    tracemalloc.start()
    try:
        batch.finish(max_in_flight=64)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert batch.source.path.stat().st_size > 4_500_000
    assert peak_bytes < 2_000_000
    assert (len(batch.answered), batch.failed) == (5_000, [(prompts[0], "duplicate_custom_id")])


def test_failed_lines_go_to_the_error_file(build_batch: Any, requests: Any) -> None:
    batch = build_batch(requests("ab") + BAD + b"\n" + requests("ac") + b"x" * 2000 + b"\n" + requests("d"))
    written: list[LineOutput] = []

    async def handle_line(line: InputLine) -> Answer:
        return answer_to(line, status_code=400 if line.custom_id == "c" else 200)

    batch.finish(handle_line, on_written=written.append)
    assert batch.answered == ["a", "b", "d"]
    assert batch.failed == [
        (None, "invalid_json_line"),
        ("a", "duplicate_custom_id"),
        ("c", 400),
        (None, "line_too_long"),
    ]
    assert [line["error"] and line["error"]["line"] for line in batch.lines("errors")] == [3, 5, None, 7]
    assert sum(line_output.is_failed for line_output in written) == 4
    assert sum(line_output.num_bytes for line_output in written) == batch.source.path.stat().st_size - 1


@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_stop_at_any_moment_loses_and_repeats_nothing(build_batch: Any, requests: Any, is_ordered: bool) -> None:
    """The engine fails in every run, each time one answer later."""
    prompts = [f"p{index}" for index in range(12)]
    batch = build_batch(requests(prompts[:6]) + BAD + requests(prompts[6:]) + requests(["p3"]))
    num_answers = 0
    asked: list[str] = []

    async def handle_line(line: InputLine) -> Answer:
        nonlocal num_answers
        if num_answers == 0:
            raise EngineFailedError("the engine has stopped")
        num_answers -= 1
        asked.append(line.custom_id)
        return answer_to(line)

    num_runs = 0
    while True:
        num_runs += 1
        num_answers = num_runs
        try:
            batch.finish(handle_line, is_ordered=is_ordered)
        except EngineFailedError:
            continue
        break
    assert num_runs > 3
    assert sorted(batch.answered) == sorted(prompts)
    assert sorted(batch.failed, key=str) == [("p3", "duplicate_custom_id"), (None, "invalid_json_line")]
    if is_ordered:
        assert batch.answered == prompts
    state = batch.finish()
    assert (state.num_answered_lines, state.num_failed_lines, state.num_bytes) == (12, 2, 0)


def test_pending_lines_are_counted(build_batch: Any, requests: Any) -> None:
    batch = build_batch(requests("ab") + BAD)
    assert batch.finish() == ResumeState(
        num_answered_lines=0, num_failed_lines=0, num_pending_lines=3, num_bytes=len(requests("ab") + BAD)
    )
    batch.source.path.write_bytes(requests("ab") + BAD + requests("c"))
    assert batch.finish() == ResumeState(
        num_answered_lines=2, num_failed_lines=1, num_pending_lines=1, num_bytes=len(requests("c"))
    )
    assert batch.answered == ["a", "b", "c"]


def test_failed_lines_are_retried_after_the_error_file_is_deleted(build_batch: Any, requests: Any) -> None:
    batch = build_batch(requests("a") + BAD + requests("c"))
    batch.finish()
    batch.source.path.write_bytes(requests("abc"))
    with pytest.raises(BatchFileError, match="line 2 has changed or moved since it was completed"):
        batch.finish()
    (batch.folder / "errors").unlink()
    batch.finish()
    assert (batch.answered, batch.failed) == (["a", "c", "b"], [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("abx", "line 3 has changed"),
        ("bc", "line 1 has changed or moved"),
        ("ab", "1 completed lines are no longer at their line numbers"),
    ],
)
def test_an_output_of_another_input_is_refused_and_unchanged(
    build_batch: Any, requests: Any, content: str, message: str
) -> None:
    batch = build_batch(requests("abc"))
    batch.finish()
    before = (batch.folder / "output").read_bytes()
    batch.source.path.write_bytes(requests(content))
    with pytest.raises(BatchFileError, match=message):
        batch.finish()
    assert (batch.folder / "output").read_bytes() == before


def test_an_output_with_a_line_twice_is_refused(build_batch: Any, requests: Any) -> None:
    batch = build_batch(requests("ab"))
    batch.finish()
    lines = (batch.folder / "output").read_bytes()
    (batch.folder / "output").write_bytes(lines + lines)
    with pytest.raises(BatchFileError, match="line 1 was answered before"):
        batch.finish()


def test_a_table_is_answered_row_by_row(build_batch: Any) -> None:
    """Equal rows are no duplicates."""
    batch = build_batch(b'prompt,seed\na,1\na,1\n"b\nc",\nd\n', name="in.csv")
    batch.finish()
    rows = (batch.folder / "output").read_text().splitlines()
    assert rows[0] == "batch_id,prompt,seed,completion,finish_reason,prompt_tokens,completion_tokens"
    assert [row.partition(",")[2] for row in rows[1:3]] == ["a,1,A,stop,1,1"] * 2
    assert batch.failed == [(None, "invalid_csv_row")]
    assert batch.finish().num_bytes == 0


def test_an_unreadable_input_is_an_error(open_input: Callable[..., InputFile], tmp_path: Path) -> None:
    source = open_input(b"")
    source.path.unlink()
    with pytest.raises(BatchFileError, match=r"can't read .*in\.jsonl: No such file"):
        list(source.records())


@pytest.mark.reported("a batch of 2000 lines with one guided_regex: 1984 of them failed")
@pytest.mark.parametrize("refusal", [OverloadedError, NotReadyError])
def test_a_temporary_refusal_is_retried(build_batch: Any, requests: Any, refusal: Any) -> None:
    batch = build_batch(requests("abc"))
    num_refusals = dict.fromkeys("abc", 2)

    async def handle_line(line: InputLine) -> Answer:
        if num_refusals[line.custom_id]:
            num_refusals[line.custom_id] -= 1
            raise refusal("not now", retry_after_s=0.0)
        return answer_to(line)

    batch.finish(handle_line)
    assert (batch.answered, batch.failed) == (["a", "b", "c"], [])
    assert set(num_refusals.values()) == {0}


@pytest.mark.parametrize("error", [DrainingError, EngineFailedError])
def test_shutdown_or_engine_failure_ends_the_run(build_batch: Any, requests: Any, error: Any) -> None:
    batch = build_batch(requests("abc"))

    async def handle_line(_line: InputLine) -> Answer:
        raise error("the end")

    with pytest.raises(error, match="the end"):
        batch.finish(handle_line)
    assert (batch.answered, batch.failed) == ([], [])


@pytest.mark.reported("a batch of failing lines raced on and could not be interrupted")
@pytest.mark.parametrize("content", [None, BAD])
def test_lines_that_fail_immediately_let_other_tasks_run(
    build_batch: Any, requests: Any, content: bytes | None
) -> None:
    """After each failed line, signals are handled and waiting lines continue."""
    batch = build_batch((content or requests(["x"])) * 100 + requests(["last"]))
    num_failed_at_look: list[int] = []

    async def handle_line(line: InputLine) -> Answer:
        return answer_to(line, status_code=400)

    async def play(run: Run) -> None:
        task = begin(run, max_in_flight=1)
        while not task.done():
            num_failed_at_look.append(len(written))
            await asyncio.sleep(0)
        await task

    written: list[LineOutput] = []
    batch.run(play, handle_line, on_written=written.append)
    assert len(written) == 101
    assert max(after - before for before, after in pairwise(num_failed_at_look)) <= 1
