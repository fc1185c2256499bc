"""The grammar sandbox: a grammar that takes too much fails, and the next one compiles."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from llguidance import LLMatcher

from distilgpt2_api.text.structured_output.grammar_sandbox import GrammarSandbox

HARMLESS = LLMatcher.grammar_from_regex("[a-z]+")
HANGS = LLMatcher.grammar_from_lark("start: A\nA: " + " & ".join(f"/(.|\\n)*w{index}(.|\\n)*/" for index in range(200)))
OVERFLOWS = LLMatcher.grammar_from_lark(
    "\n".join(["start: r4000", *(f'r{index}: r{index - 1} "x"' for index in range(1, 4001)), 'r0: "a"'])
)


@pytest.fixture
def sandbox() -> Iterator[GrammarSandbox]:
    sandbox = GrammarSandbox()
    yield sandbox
    sandbox.close()


def test_a_malformed_grammar_passes_because_the_library_reports_its_error(sandbox: GrammarSandbox) -> None:
    assert sandbox.compiles(LLMatcher.grammar_from_regex("(a"))
    assert sandbox.compiles("not even a grammar")


def test_a_grammar_that_hangs_or_overflows_fails_and_the_next_one_compiles(sandbox: GrammarSandbox) -> None:
    assert sandbox.compiles(HARMLESS)
    assert not sandbox.compiles(HANGS)
    assert sandbox.compiles(HARMLESS)
    assert not sandbox.compiles(OVERFLOWS)
    assert sandbox.compiles(HARMLESS)


def test_closing_twice_is_harmless(sandbox: GrammarSandbox) -> None:
    assert sandbox.compiles(HARMLESS)
    sandbox.close()
    sandbox.close()
    assert sandbox.compiles(HARMLESS)
