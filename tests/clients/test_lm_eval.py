"""lm-evaluation-harness as users start it, on local tasks; its results equal those of an independent scorer."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

LM_EVAL = Path(__file__).parents[2] / ".tools" / "lm-eval" / "bin" / "lm_eval"
TASKS = Path(__file__).parent / "tasks"
MAX_LENGTH = 512
"""The bundled model's context length; lm-eval's default is 2048."""

pytestmark = pytest.mark.timeout(280)


@dataclass(frozen=True)
class Evaluation:
    results: dict[str, dict[str, Any]]
    samples: dict[str, list[dict[str, Any]]]

    def responses(self, task: str) -> list[list[Any]]:
        """The responses for each document: `[log-probability, greedy]` as texts, a log-probability, or a text."""
        return [sample["filtered_resps"] for sample in self.samples[task]]


Evaluate = Callable[..., Evaluation]


@pytest.fixture(scope="module")
def evaluate(storyteller: Any, tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    """Runs `lm_eval run --model local-completions …` without a network."""

    def run(*tasks: str, batch_size: int = 1, **model_args: object) -> Evaluation:
        folder = tmp_path_factory.mktemp("lm-eval")
        arguments = {
            "model": "storyteller",
            "base_url": f"{storyteller.url}/v1/completions",
            "max_length": MAX_LENGTH,
            **model_args,
        }
        command = [
            *(str(LM_EVAL), "run", "--model", "local-completions"),
            *("--model_args", ",".join(f"{name}={value}" for name, value in arguments.items())),
            *("--include_path", ".", "--tasks", ",".join(tasks), "--batch_size", str(batch_size)),
            *("--output_path", str(folder), "--log_samples"),
        ]
        offline = {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        done = subprocess.run(
            command, cwd=TASKS, env={**os.environ, **offline}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-5000:]
        assert "Retry" not in done.stderr, done.stderr[-5000:]
        return read_output(folder)

    return run


def read_output(folder: Path) -> Evaluation:
    (results,) = folder.glob("**/results_*.json")
    samples = {}
    for path in folder.glob("**/samples_*.jsonl"):
        task = path.name.removeprefix("samples_").rpartition("_")[0]
        samples[task] = sorted(map(json.loads, path.read_text().splitlines()), key=lambda sample: sample["doc_id"])
    return Evaluation(json.loads(results.read_text())["results"], samples)


@pytest.fixture(scope="module")
def evaluation(evaluate: Evaluate) -> Evaluation:
    """All tasks with default options: lm-eval finds the service's tokenizer by itself."""
    return evaluate("stories_choice", "stories_last_word", "stories_perplexity", "stories_next_words")


def documents(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (TASKS / name).read_text().splitlines()]


def choices(scorer: Any) -> list[list[tuple[float, bool]]]:
    """Expected scores for `stories_choice.yaml`: of each document the right ending, then the wrong one."""
    return [
        [scorer.score_pair(document["beginning"], f" {document[key]}") for key in ("right", "wrong")]
        for document in documents("endings.jsonl")
    ]


def assert_same_scores(found: Sequence[Sequence[Any]], expected: Sequence[Sequence[tuple[float, bool]]]) -> None:
    for ours, theirs in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
        assert float(ours[0]) == pytest.approx(theirs[0], abs=1e-4)
        assert ours[1] == str(theirs[1])


def test_continuations_have_the_reference_log_probabilities(evaluation: Evaluation, scorer: Any) -> None:
    """Multiple choice: every ending's log-probability and greedy flag, and the two accuracies."""
    expected = choices(scorer)
    assert_same_scores(evaluation.responses("stories_choice"), expected)
    is_right = [right[0] > wrong[0] for right, wrong in expected]
    assert evaluation.results["stories_choice"]["acc,none"] == sum(is_right) / len(is_right)


def test_the_greedy_flag_is_the_reference_one(evaluation: Evaluation, scorer: Any) -> None:
    """lm-eval compares two of the service's floats for equality. Only some of these words are the most likely ones."""
    expected = []
    for document in documents("endings.jsonl"):
        context, _, word = f"{document['beginning']} {document['right']}".rpartition(" ")
        expected.append([scorer.score_pair(context, f" {word}")])
    assert {is_greedy for ((_, is_greedy),) in expected} == {True, False}

    assert_same_scores(evaluation.responses("stories_last_word"), expected)

    results = evaluation.results["stories_last_word"]
    assert results["acc,none"] == sum(is_greedy for ((_, is_greedy),) in expected) / len(expected)
    mean = sum(logprob for ((logprob, _),) in expected) / len(expected)
    assert results["perplexity,none"] == pytest.approx(math.exp(-mean), rel=1e-4)


def rolling_windows(token_ids: list[int], end_of_text: int) -> Iterator[tuple[list[int], list[int]]]:
    """Split a long text as lm-eval does, into context and scored part; all windows but the first have a context."""
    length = MAX_LENGTH - 2  # one token of context, and one that lm-eval always generates
    yield [end_of_text], token_ids[:length]
    for begin in range(length, len(token_ids), length):
        end = min(begin + length, len(token_ids))
        yield token_ids[end - length - 1 : begin], token_ids[begin:end]


def test_whole_texts_have_the_reference_perplexity(evaluation: Evaluation, scorer: Any) -> None:
    """Including a text longer than the model's context."""
    texts = [document["text"] for document in documents("texts.jsonl")]
    expected = [
        sum(scorer.score(*window)[0] for window in rolling_windows(scorer.encode(text), scorer.end_of_text))
        for text in texts
    ]
    found = [float(responses[0]) for responses in evaluation.responses("stories_perplexity")]
    assert found == pytest.approx(expected, abs=5e-4)  # up to 1280 tokens: 1e-4 per window

    num_bytes = sum(len(text.encode()) for text in texts)
    bits = evaluation.results["stories_perplexity"]["bits_per_byte,none"]
    assert bits == pytest.approx(-sum(expected) / math.log(2) / num_bytes, abs=1e-4)


@pytest.fixture(scope="module")
def next_words(scorer: Any) -> list[list[str]]:
    """Expected texts for `stories_next_words.yaml`."""
    texts = [scorer.complete(document["beginning"], 12) for document in documents("endings.jsonl")]
    return [[text.partition(".")[0].partition("\n\n")[0]] for text in texts]


def test_texts_are_generated_greedily_up_to_a_stop(evaluation: Evaluation, next_words: list[list[str]]) -> None:
    assert evaluation.responses("stories_next_words") == next_words


def test_parallel_batches_give_the_same_results(evaluate: Evaluate, scorer: Any) -> None:
    """Eight concurrent requests of several prompts."""
    evaluation = evaluate("stories_choice", num_concurrent=8, batch_size=3)
    assert_same_scores(evaluation.responses("stories_choice"), choices(scorer))


def test_texts_instead_of_token_ids_give_the_same_results(evaluate: Evaluate, scorer: Any) -> None:
    """lm-eval converts its tokens back to text with `/detokenize`."""
    evaluation = evaluate("stories_choice", tokenizer_backend="remote", tokenized_requests=False)
    assert_same_scores(evaluation.responses("stories_choice"), choices(scorer))


def test_generation_needs_no_tokenizer(evaluate: Evaluate, next_words: list[list[str]]) -> None:
    evaluation = evaluate("stories_next_words", tokenizer_backend="None")
    assert evaluation.responses("stories_next_words") == next_words


def test_scores_of_the_service_equal_those_of_lm_eval(storyteller: Any, scorer: Any) -> None:
    """With all endings in one request to `/v1/score`."""
    pairs = [
        {"context": document["beginning"], "continuation": f" {document[key]}"}
        for document in documents("endings.jsonl")
        for key in ("right", "wrong")
    ]
    data = httpx.post(f"{storyteller.url}/v1/score", json={"input": pairs}, timeout=60).json()["data"]
    assert_same_scores([[[score["logprob"], str(score["is_greedy"])] for score in data]], choices(scorer))
