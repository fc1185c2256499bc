"""`batch`: its input, its output and the messages that it prints."""

from __future__ import annotations

import csv
import io
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import Result

from distilgpt2_api.batch.files.formats import JsonLines
from distilgpt2_api.batch.files.line_output import LineOutput
from distilgpt2_api.batch.files.output_file import OutputFile
from distilgpt2_api.batch.files.recovery import ResumeState
from distilgpt2_api.cli.batch_progress import ERASE_REST, BatchProgress
from distilgpt2_api.engine.engine import Engine, StepOutputs
from distilgpt2_api.server.protocols.score.writer import ScoreWriter

Command = Callable[..., Result]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> NoReturn:
        pytest.fail("a socket was connected")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def batch(invoke: Command, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`batch(…)` runs in the test's folder with the tiny model."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return invoke("batch", "--model", str(tiny_model), "--precision", "f32", *arguments)

    return run


def ask(url: str, custom_id: str = "1", **body: object) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}) + "\n"


def lines_of(path: str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def test_each_line_gets_the_response_of_its_route(batch: Command) -> None:
    """With every feature of the routes: several texts, log-probabilities, grammars, scores."""
    greedy = {"temperature": 0, "max_tokens": 4}
    lines = [
        ask("/v1/completions", "a", prompt="Once", **greedy),
        ask("/v1/completions", "b", prompt=["Once", "Twice"], n=2, logprobs=1, max_tokens=2, seed=1),
        ask("/v1/completions", "c", prompt="Once", max_tokens=8, guided_regex="(yes|no)"),
        ask("/v1/score", "d", input="Once"),
    ]
    Path("in.jsonl").write_text("\n".join(lines))
    result = batch("in.jsonl", "-o", "out.jsonl")

    assert (result.exit_code, result.stdout) == (0, ""), result.output
    assert result.stderr == "4 lines, 4 answered: out.jsonl\n"
    answers = {line["custom_id"]: line["response"] for line in lines_of("out.jsonl")}
    assert list(answers) == ["a", "b", "c", "d"]
    assert {answer["status_code"] for answer in answers.values()} == {200}
    assert len({answer["request_id"] for answer in answers.values()}) == 4
    bodies = {name: answer["body"] for name, answer in answers.items()}
    assert bodies["a"]["usage"] | {"prompt_tokens_details": None} == {
        "prompt_tokens": 4,
        "completion_tokens": 4,
        "total_tokens": 8,
        "prompt_tokens_details": None,
    }
    assert [choice["index"] for choice in bodies["b"]["choices"]] == [0, 1, 2, 3]
    assert bodies["b"]["choices"][0]["logprobs"]["tokens"]
    assert bodies["c"]["choices"][0]["text"] in {"yes", "no"}
    assert bodies["d"]["data"][0]["num_tokens"] == 4
    assert not Path("out.errors.jsonl").exists()


def test_a_table_gets_its_completions(batch: Command) -> None:
    Path("in.csv").write_text('title,prompt,max_tokens,ignore_eos\nfirst,"Once, upon",3,true\nsecond,Twice,4,true\n')
    result = batch("in.csv", "-o", "out.csv")
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    assert result.stderr == ("parameters from columns: max_tokens, ignore_eos\n2 lines, 2 answered: out.csv\n")
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["title"], row["prompt"], row["completion_tokens"], row["finish_reason"]) for row in rows] == [
        ("first", "Once, upon", "3", "length"),
        ("second", "Twice", "4", "length"),
    ]
    assert all(row["completion"] for row in rows)


def test_failed_lines_have_their_own_file_and_exit_status(batch: Command) -> None:
    """Also in a second run with nothing left to do: it loads no model, so an unknown one is no error."""
    Path("in.jsonl").write_text(ask("/v1/completions", prompt="a", max_tokens=1) + "{\n" + ask("/v1/nowhere", "2"))
    result = batch("in.jsonl", "-o", "out.jsonl")
    assert result.exit_code == 5
    assert result.stderr == (
        "3 lines, 1 answered: out.jsonl\n2 failed: out.errors.jsonl (--retry-failed asks them again)\n"
    )
    assert [line["error"]["code"] for line in lines_of("out.errors.jsonl")] == ["invalid_json_line", "url_mismatch"]
    again = batch("in.jsonl", "-o", "out.jsonl", "--model", "./nowhere")
    assert again.exit_code == result.exit_code
    assert again.stderr == (
        f"nothing to do: 3 of 3 lines were complete already (--overwrite starts over)\n{result.stderr}"
    )
    assert len(lines_of("out.jsonl")) == 1


def test_failed_lines_are_asked_again(batch: Command) -> None:
    """Corrected or as they are, also if another input is refused first. Their answers are behind the others."""
    whole = ask("/v1/completions", "a", prompt="a", max_tokens=1), ask("/v1/completions", "c", prompt="c", max_tokens=1)
    Path("in.jsonl").write_text(whole[0] + "{\n" + whole[1] + "[\n")
    assert batch("in.jsonl", "-o", "out.jsonl").exit_code == 5
    errors = Path("out.errors.jsonl").read_bytes()
    Path("other.jsonl").write_text(whole[1] + "{\n" + whole[0])
    assert batch("other.jsonl", "-o", "out.jsonl", "--retry-failed").exit_code == 1
    assert Path("out.errors.jsonl").read_bytes() == errors

    Path("in.jsonl").write_text(whole[0] + ask("/v1/completions", "b", prompt="b", max_tokens=1) + whole[1] + "[\n")
    again = batch("in.jsonl", "-o", "out.jsonl", "--retry-failed")

    assert (again.exit_code, again.stderr.splitlines()[0]) == (5, "2 of 4 lines were complete already")
    assert [line["custom_id"] for line in lines_of("out.jsonl")] == ["a", "c", "b"]
    assert [line["error"]["line"] for line in lines_of("out.errors.jsonl")] == [4]
    both = batch("in.jsonl", "-o", "out.jsonl", "--retry-failed", "--overwrite")
    assert (both.exit_code, "leave out --retry-failed" in both.stderr) == (2, True)


def test_a_run_that_continues_says_how_many_lines_were_complete(batch: Command) -> None:
    first, second = (ask("/v1/completions", custom_id, prompt="a", max_tokens=1) for custom_id in "ab")
    Path("in.jsonl").write_text(first)
    assert batch("in.jsonl", "-o", "out.jsonl").stderr == "1 lines, 1 answered: out.jsonl\n"
    Path("in.jsonl").write_text(first + second)
    continued = batch("in.jsonl", "-o", "out.jsonl")
    assert continued.stderr == "1 of 2 lines were complete already\n2 lines, 2 answered: out.jsonl\n"
    again = batch("in.jsonl", "-o", "out.jsonl", "--overwrite")
    assert again.stderr == "2 lines, 2 answered: out.jsonl\n"


def test_errors_go_to_the_given_file(batch: Command) -> None:
    Path("in.jsonl").write_text("{\n")
    assert batch("in.jsonl", "-o", "out.jsonl", "--errors", "bad").exit_code == 5
    assert (len(lines_of("bad")), Path("out.errors.jsonl").exists()) == (1, False)


def test_limits_of_a_service_do_not_apply(batch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue, the timeout and a caller's priority do not apply; limits of a single request do."""
    for name, value in {"MAX_WAITING_REQUESTS": 2, "MAX_WAITING_TOKENS": 1, "TIMEOUT_S": 0.001, "MAX_N": 2}.items():
        monkeypatch.setenv(f"DISTILGPT2_{name}", str(value))
    monkeypatch.setenv("DISTILGPT2_API_KEYS", "alice:0123456789abcdef0123")
    prompts = [f"{index:03}" for index in range(300)]
    lines = [
        ask("/v1/completions", prompt, prompt=prompt, max_tokens=2, ignore_eos=True, priority=-1) for prompt in prompts
    ]
    lines.append(ask("/v1/completions", "n", prompt="a", n=3))
    Path("in.jsonl").write_text("".join(lines))
    assert batch("in.jsonl", "-o", "out.jsonl").exit_code == 5
    assert [line["custom_id"] for line in lines_of("out.jsonl")] == prompts
    (error,) = lines_of("out.errors.jsonl")
    assert (error["custom_id"], error["response"]["body"]["error"]["param"]) == ("n", "n")


@pytest.mark.reported("a batch of 2000 lines with one guided_regex: 1984 of them failed")
def test_lines_that_wait_for_grammars_are_answered(batch: Command) -> None:
    """First all lines share one grammar, then there are more different grammars than may wait."""
    options = {"prompt": "a", "max_tokens": 2}
    lines = [ask("/v1/completions", f"same{index}", guided_regex="[ab]{9}", **options) for index in range(100)]
    lines += [ask("/v1/completions", f"own{index}", guided_regex=f"{index:02}", **options) for index in range(30)]
    Path("in.jsonl").write_text("".join(lines))
    assert batch("in.jsonl", "-o", "out.jsonl").exit_code == 0
    answers = {line["custom_id"]: line["response"]["body"]["choices"][0] for line in lines_of("out.jsonl")}
    assert len(answers) == 130
    assert [answers[f"own{index}"]["text"] for index in range(30)] == [f"{index:02}" for index in range(30)]


def test_a_seed_gives_the_same_text_in_every_batch(batch: Command) -> None:
    """So an interrupted batch ends with the same output as an uninterrupted one."""
    lines = [ask("/v1/completions", f"{index}", prompt="Once", seed=index, max_tokens=9) for index in range(40)]
    texts = []
    for number, some in enumerate((lines, lines[::-1], lines[20:])):
        Path(f"in{number}.jsonl").write_text("".join(some))
        assert batch(f"in{number}.jsonl", "-o", f"out{number}.jsonl", "--unordered").exit_code == 0
        answers = {line["custom_id"]: line["response"]["body"] for line in lines_of(f"out{number}.jsonl")}
        texts.append({custom_id: body["choices"][0]["text"] for custom_id, body in answers.items()})
    assert texts[0] == texts[1]
    assert texts[2].items() < texts[0].items()


def test_an_empty_input_gives_an_empty_output(batch: Command) -> None:
    Path("in.jsonl").write_text("\n\n")
    result = batch("in.jsonl", "-o", "out.jsonl")
    assert (result.exit_code, result.stderr) == (0, "0 lines, 0 answered: out.jsonl\n")
    assert Path("out.jsonl").read_bytes() == b""


def test_an_output_of_another_input_is_kept_without_overwrite(batch: Command) -> None:
    Path("in.jsonl").write_text(ask("/v1/completions", "a", prompt="a", max_tokens=1) + "{\n")
    batch("in.jsonl", "-o", "out.jsonl")
    before = Path("out.jsonl").read_bytes()
    Path("in.jsonl").write_text(ask("/v1/completions", "b", prompt="b", max_tokens=1))
    result = batch("in.jsonl", "-o", "out.jsonl")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert (
        "the answers in out.jsonl and out.errors.jsonl are of another input than in.jsonl: line 1 has changed or moved"
        " since it was completed; name another output, ask lines that failed again with --retry-failed, or start over"
        " with --overwrite\n" in result.stderr
    )
    assert Path("out.jsonl").read_bytes() == before
    assert batch("in.jsonl", "-o", "out.jsonl", "--overwrite").exit_code == 0
    assert [line["custom_id"] for line in lines_of("out.jsonl")] == ["b"]
    assert not Path("out.errors.jsonl").exists()


def test_a_table_without_a_length_says_the_default(batch: Command) -> None:
    """Nor does an error name an empty file. A mistyped column is named."""
    Path("in.csv").write_text("prompt,temperatur,title\nOnce,0,\n")
    assert batch("in.csv", "-o", "out.csv").stderr.splitlines()[:3] == [
        "parameters from columns: none",
        "the column temperatur is only copied: did you mean temperature?",
        "no column max_tokens: each row gets up to 16 tokens",
    ]
    Path("in.csv").write_text("prompt,temperatur,title\nTwice,0,\n")
    assert "the answers in out.csv are of another input than in.csv" in batch("in.csv", "-o", "out.csv").stderr


def test_two_batches_do_not_write_one_output(batch: Command) -> None:
    Path("in.jsonl").write_text(ask("/v1/completions", prompt="a", max_tokens=1))
    other = OutputFile(Path("out.jsonl"), file_format=JsonLines())
    result = batch("in.jsonl", "-o", "out.jsonl")
    other.close()
    assert (result.exit_code, result.stderr) == (
        1,
        "error: out.jsonl is locked: another batch is writing to it\n",
    )
    assert batch("in.jsonl", "-o", "out.jsonl").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("in.jsonl",), 2, "Missing option '-o'"),
        (("none.jsonl", "-o", "out.jsonl"), 2, "'none.jsonl' does not exist"),
        (("in.jsonl", "-o", "in.jsonl"), 1, "must be three different files"),
        (("in.jsonl", "-o", "out.jsonl", "--errors", "./out.jsonl"), 1, "must be three different files"),
        (("in.jsonl", "-o", "out.csv"), 1, "must both be tables"),
        (("in.csv", "-o", "out.jsonl"), 1, "must both be tables"),
        (("in.csv", "-o", "out.csv"), 1, "has no column 'prompt'"),
        (("in.jsonl", "-o", "none/out.jsonl"), 1, "can't open none/out.jsonl: No such file"),
        (("in.jsonl", "-o", "notes.txt"), 1, "notes.txt is not an output for this input"),
        (("in.jsonl", "-o", "out.jsonl", "--model", "./none"), 1, "/none\n"),
    ],
)
def test_an_error_is_one_line(batch: Command, arguments: Any, status: int, message: str) -> None:
    Path("in.jsonl").write_text(ask("/v1/completions", prompt="a", max_tokens=1))
    Path("in.csv").write_text("title\na\n")
    Path("notes.txt").write_text("mine")
    result = batch(*arguments)
    assert result.exit_code == status, result.output
    assert message in result.stderr
    assert status == 2 or result.stderr.count("error: ") == result.stderr.count("\n") == 1
    assert Path("notes.txt").read_text() == "mine"
    assert Path("in.jsonl").read_text() == ask("/v1/completions", prompt="a", max_tokens=1)


def test_a_model_that_can_not_be_loaded_is_reported_and_the_output_stays(
    batch: Command, tiny_model: Path, tmp_path: Path
) -> None:
    """The engine's thread detects it."""
    folder = tmp_path / "broken"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((tiny_model / name).read_bytes())
    (folder / "model.safetensors").write_bytes(b"broken")
    Path("in.jsonl").write_text(ask("/v1/completions", prompt="a", max_tokens=1))
    result = batch("in.jsonl", "-o", "out.jsonl", "--model", str(folder))
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.stderr
    assert "model.safetensors" in result.stderr
    assert Path("out.jsonl").read_bytes() == b""


def test_an_engine_failure_ends_the_batch_and_the_output_stays(batch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line caused it, so none is written as failed. The next run continues."""
    Path("in.jsonl").write_text(
        "".join(ask("/v1/completions", f"{index}", prompt="a", max_tokens=1 + index * 5) for index in range(10))
    )
    num_steps = 0
    step = Engine.step

    def fail_late(engine: Engine) -> StepOutputs:
        nonlocal num_steps
        num_steps += 1
        if num_steps > 20:
            raise RuntimeError("broken")
        return step(engine)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", fail_late)
        result = batch("in.jsonl", "-o", "out.jsonl")
    num_lines = len(lines_of("out.jsonl"))
    assert (result.exit_code, 0 < num_lines < 10) == (1, True), result.stderr
    assert result.stderr.endswith(
        f"error: the engine stopped after an internal error; {num_lines} lines are complete: run the same command"
        " again to continue\n"
    )
    assert not Path("out.errors.jsonl").exists()
    assert batch("in.jsonl", "-o", "out.jsonl").exit_code == 0
    assert [line["custom_id"] for line in lines_of("out.jsonl")] == [f"{index}" for index in range(10)]


def test_an_internal_error_fails_one_line_and_is_logged(
    batch: Command, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Path("in.jsonl").write_text(
        ask("/v1/completions", "a", prompt="a", max_tokens=1) + ask("/v1/score", "b", input="ab")
    )

    def fail(writer: ScoreWriter) -> bytes:
        raise RuntimeError("broken")

    monkeypatch.setattr(ScoreWriter, "body", fail)
    assert batch("in.jsonl", "-o", "out.jsonl").exit_code == 5
    (error,) = lines_of("out.errors.jsonl")
    assert (error["custom_id"], error["response"]["status_code"]) == ("b", 500)
    assert error["response"]["body"]["error"]["code"] == "internal_error"
    (entry,) = [record for record in caplog.records if record.name == "distilgpt2_api.local_service"]
    assert entry.exc_info is not None
    assert [line["custom_id"] for line in lines_of("out.jsonl")] == ["a"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def line_outputs() -> list[LineOutput]:
    """Ten lines of ten bytes each; every fifth failed."""
    return [LineOutput(num_bytes=10, content=b"", is_failed=index % 5 == 4) for index in range(10)]


def played(stream: io.StringIO, line_outputs: list[LineOutput], *, step_s: float) -> str:
    """The output while one line is written every `step_s`. Two lines of ten bytes were done before."""
    now_s = 100.0
    state = ResumeState(num_answered_lines=1, num_failed_lines=1, num_pending_lines=10, num_bytes=100)
    with BatchProgress(state, stream, clock=lambda: now_s) as progress:
        for line_output in line_outputs:
            now_s += step_s
            progress.note(line_output)
    assert (progress.num_done_lines, progress.num_failed_lines) == (12, 3)
    return stream.getvalue()


def test_a_terminal_shows_a_bar_with_the_time_left(line_outputs: list[LineOutput]) -> None:
    text = played(Terminal(), line_outputs, step_s=60.0)
    shown = text.split("\r")[1:]
    assert shown[0].startswith("[###---------------------------]  10%  3 lines, 1 failed, 0:09:00 left")
    assert shown[4].startswith("[###############---------------]  50%  7 lines, 2 failed, 0:05:00 left")
    assert shown[-1].startswith("[##############################] 100%  12 lines, 3 failed, 0:00:00 left")
    assert text.endswith("\n")
    assert text.count("\n") == 1


def test_the_time_left_is_not_estimated_at_the_beginning(line_outputs: list[LineOutput]) -> None:
    """Many lines are in flight then, and few are done."""
    shown = played(Terminal(), line_outputs, step_s=1.0).split("\r")[1:]
    assert shown[0].removesuffix(ERASE_REST).endswith("  10%  3 lines, 1 failed")
    assert shown[2].removesuffix(ERASE_REST).endswith("  30%  5 lines, 1 failed, 0:00:07 left")


def test_the_bar_is_not_redrawn_for_every_line(line_outputs: list[LineOutput]) -> None:
    assert played(Terminal(), line_outputs, step_s=0.04).count("\r") == 4


def test_a_log_gets_a_line_at_intervals(line_outputs: list[LineOutput]) -> None:
    assert played(io.StringIO(), line_outputs, step_s=1.0) == ""
    assert played(io.StringIO(), line_outputs, step_s=12.0).splitlines() == [
        " 30%  5 lines, 1 failed, 0:01:24 left",
        " 60%  8 lines, 2 failed, 0:00:48 left",
        " 90%  11 lines, 2 failed, 0:00:12 left",
    ]
