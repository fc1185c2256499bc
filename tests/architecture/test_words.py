"""One thing has one name. The words are the glossary's; their synonyms are not to be met in the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest

EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "misc", "data", "base"}
"""Names that say nothing of what is in a module, so that everything ends up there."""

SYNONYMS = {
    r"(job|session)s?": "request, or sequence where its state is meant",
    r"(slot|kv_page|page_table|block_map)s?": "block, block table",
    r"(helper|helpers|util|utils|manager|misc|stuff)": "what it does",
    r"(token_limit|tokens_limit|max_len|maxlen)": "max_tokens, max_*: a limit says of what",
    r"(nb|cnt|no_of|number_of|n_tokens|token_count|len_tokens)": "num_*",
    r"(queue_len|queue_size|queued)": "num_waiting_*, waiting: the states are waiting, running, finished",
    r"(ttft_time|first_token_time|inter_token_time)": "ttft, itl, tpot",
    r"(kill|killed|cancelled|canceled)": "abort",
    r"\w+_(seconds|secs|sec|millis|msec|msecs|byte_count)": "_s, _ms, _bytes: a unit is a suffix",
}
"""Whole words of an identifier, underscores or its ends around them, and what is said instead."""

FOREIGN = {
    "cancelled": "OpenAI's status of a batch",
    "cancelled_at": "and its field",
    "max_model_len": "vLLM's field",
    "max_context_len": "OpenVINO's input",
    "top_n_tokens": "TGI's parameter",
}


@pytest.fixture(scope="module")
def identifiers(modules: list[Any]) -> dict[str, str]:
    """Every name that the package gives to something, in snake case, and a module that does."""
    return {
        _snake(name): module.name
        for module in modules
        for name in _given_names(module.tree)
        if not name.startswith("__")
    }


def _given_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")


def test_modules_are_named_for_what_is_in_them(modules: list[Any]) -> None:
    assert [module.name for module in modules if EMPTY_NAMES & set(re.split(r"[/_.]", module.name))] == []


@pytest.mark.parametrize(("synonym", "word"), SYNONYMS.items(), ids=SYNONYMS.values())
def test_no_name_is_a_synonym_of_a_word_that_we_have(synonym: str, word: str, identifiers: dict[str, str]) -> None:
    pattern = re.compile(rf"(^|_){synonym}($|_)")

    assert {name: where for name, where in identifiers.items() if pattern.search(name) and name not in FOREIGN} == {}
