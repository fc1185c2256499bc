"""The process that tries grammars: it ends where a grammar is too much, and is there again for the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from llguidance import LLMatcher

from distilgpt2_api.text.grammar_sandbox import GrammarSandbox

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


def test_a_malformed_grammar_compiles_for_its_error_is_the_librarys_to_tell(sandbox: GrammarSandbox) -> None:
    assert sandbox.compiles(LLMatcher.grammar_from_regex("(a"))
    assert sandbox.compiles("not even a grammar")


def test_what_hangs_or_overflows_does_not_survive_and_the_next_is_tried_afresh(sandbox: GrammarSandbox) -> None:
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
